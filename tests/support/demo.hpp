#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "common/png.hpp"
#include "flux/program.hpp"
#include "judge/description.hpp"
#include "judge/sight.hpp"
#include "judge/verdict.hpp"
#include "support/temporary_directory.hpp"

namespace ebb::testing {

inline const std::filesystem::path models = EBB_MODELS_DIR;

/// Prompts of the grammar that the demo weights were not trained on: the first `count`.
inline std::vector<std::string> held_out(std::size_t count) {
  std::ifstream file(models / "held_out.txt");
  std::vector<std::string> prompts(count);
  for (std::string& prompt : prompts) REQUIRE(std::getline(file, prompt));
  return prompts;
}

/// As quickstart.sh and evaluate.sh draw with the demo weights. One thread: tests run beside each other.
inline flux::Options demo_options(const std::vector<std::string>& prompts, std::size_t steps,
                                  const std::string& device) {
  flux::Options options;
  options.model = (models / "demo").string();
  options.prompts = prompts;
  options.height = options.width = 128;
  options.max_sequence_length = 40;
  options.steps = steps;
  options.device = device;
  options.threads = 1;
  options.quiet = true;
  return options;
}

/// A picture for each prompt, through the whole program.
inline std::vector<examples::PngPicture> drawn(const std::vector<std::string>& prompts, std::size_t steps,
                                               const std::string& device) {
  const TemporaryDirectory directory;
  flux::Options options = demo_options(prompts, steps, device);
  options.output = (directory.path() / "picture.png").string();
  std::ostringstream out;
  flux::run(options, out);
  std::vector<examples::PngPicture> pictures;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    pictures.push_back(examples::read_png(examples::numbered(options.output, i, prompts.size())));
  return pictures;
}

/// How many of `pictures` show what their prompts ask for. Says which do not.
inline std::size_t right(const std::vector<examples::PngPicture>& pictures, const std::vector<std::string>& prompts) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto verdict = judge::compare(judge::look(pictures[i]), judge::Description::parse(prompts[i]));
    INFO(prompts[i]);
    WARN(verdict.right());
    count += verdict.right();
  }
  return count;
}

}  // namespace ebb::testing
