// From a prompt to a PNG with FLUX.1, out of a directory that diffusers wrote.
#include <cstdio>
#include <exception>
#include <iostream>

#include "common/interrupt.hpp"
#include "flux/program.hpp"

int main(int argc, char** argv) {
  const ebb::examples::InterruptGuard interrupts;
  try {
    CLI::App app("Draws pictures with FLUX.1: text to image, quantized and offloaded as you choose.", "flux");
    ebb::flux::Options options;
    options.declare(app);
    CLI11_PARSE(app, argc, argv);
    ebb::flux::run(options, std::cout);
    return 0;
  } catch (const ebb::examples::Interrupted& stop) {
    std::fputs("flux: stopped\n", stderr);
    return stop.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flux: %s\n", error.what());
    return 1;
  }
}
