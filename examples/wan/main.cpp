// From a prompt to an MP4 with Wan 2.1, out of a directory that diffusers wrote.
#include <cstdio>
#include <exception>
#include <iostream>

#include "common/interrupt.hpp"
#include "wan/program.hpp"

int main(int argc, char** argv) {
  const ebb::examples::InterruptGuard interrupts;
  try {
    CLI::App app("Makes videos with Wan 2.1: text to video, quantized and offloaded as you choose.", "wan");
    ebb::wan::Options options;
    options.declare(app);
    CLI11_PARSE(app, argc, argv);
    ebb::wan::run(options, std::cout);
    return 0;
  } catch (const ebb::examples::Interrupted& stop) {
    std::fputs("wan: stopped\n", stderr);
    return stop.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "wan: %s\n", error.what());
    return 1;
  }
}
