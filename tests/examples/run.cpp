#include "common/run.hpp"

#include <doctest/doctest.h>

#include <string>

#include "support/temporary_directory.hpp"

namespace {

using ebb::ConfigError;
using ebb::examples::check_distinct;

TEST_CASE("what a run writes has names of its own") {
  ebb::examples::RunOptions options;
  options.report = "out/report.json";
  options.trace = "out/trace.json";
  check_distinct(options, "out/picture.png", "out/latents.safetensors", 3);
  check_distinct(options, "out/frames/", "", 2);
  check_distinct(options, "out/%04d.png", "", 1);
  const auto refused = [&](const char* output, const char* latents, std::size_t count) {
    return ebb::testing::message_of<ConfigError>([&] { check_distinct(options, output, latents, count); });
  };
  CHECK(refused("out/report.json", "", 1).find("--output and --report") != std::string::npos);
  CHECK(refused("out/../out/report.json", "", 1).find("--output and --report") != std::string::npos);
  CHECK(refused("a.png", "a-1.png", 2).find("--output and --output-latents") != std::string::npos);
  CHECK(refused("frames/", "frames", 1).find("--output and --output-latents") != std::string::npos);
  CHECK(refused("out", "", 1).find("--output and --report") != std::string::npos);  // the directory of the report
  CHECK(refused("deep/%d.png", "deep", 1).find("--output and --output-latents") != std::string::npos);
}

}  // namespace
