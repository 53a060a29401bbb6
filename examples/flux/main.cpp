// From a prompt to a PNG with FLUX.1, out of a directory that diffusers wrote.
#include <iostream>

#include "common/command_line.hpp"
#include "flux/program.hpp"

int main(int argc, char** argv) {
  CLI::App app("Draws pictures with FLUX.1: text to image, quantized and offloaded as you choose.", "flux");
  ebb::flux::Options options;
  options.declare(app);
  return ebb::examples::run_command_line(app, argc, argv, [&] { ebb::flux::run(options, std::cout); });
}
