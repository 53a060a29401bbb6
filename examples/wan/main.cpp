// From a prompt to an MP4 with Wan 2.1, out of a directory that diffusers wrote.
#include <iostream>

#include "common/command_line.hpp"
#include "wan/program.hpp"

int main(int argc, char** argv) {
  CLI::App app("Makes videos with Wan 2.1: text to video, quantized and offloaded as you choose.", "wan");
  ebb::wan::Options options;
  options.declare(app);
  return ebb::examples::run_command_line(app, argc, argv, [&] { ebb::wan::run(options, std::cout); });
}
