// The whole program on a GPU with the demo weights: pictures, and the files beside them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/demo.hpp"
#include "support/repeats.hpp"

using namespace ebb;

namespace {

struct Span {
  double begin, end;
};

/// The spans of a track of a trace: 0 computes, 1 copies.
std::vector<Span> spans(const nlohmann::json& trace, int track) {
  std::vector<Span> result;
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X" || event.at("tid") != track) continue;
    CHECK(!event.at("name").get<std::string>().empty());
    const double begin = event.at("ts");
    result.push_back({begin, begin + event.at("dur").get<double>()});
  }
  return result;
}

}  // namespace

TEST_CASE("the program writes a picture, the report, the timeline and the algorithms") {
  const testing::TemporaryDirectory directory;
  const auto prompts = testing::held_out(1);
  const std::size_t steps = std::max<std::size_t>(testing::repeats(8), 3);
  flux::Options options = testing::demo_options(prompts, steps, "cuda");
  options.offload = "block";
  const auto run = [&](const char* name) {
    options.output = (directory / (std::string(name) + ".png")).string();
    options.report = (directory / (std::string(name) + ".json")).string();
    std::ostringstream out;
    flux::run(options, out);
    CHECK(out.str().empty());
    const auto picture = examples::read_png(options.output);
    CHECK(picture.width == 128);
    CHECK(picture.height == 128);
    return picture.pixels;
  };
  options.tune = (directory / "tuned").string();
  options.trace = (directory / "trace.json").string();
  const auto traced = run("traced");
  const auto trace = nlohmann::json::parse(testing::TemporaryDirectory::read(options.trace));
  const std::string tuned = testing::TemporaryDirectory::read(options.tune);
  CHECK(!tuned.empty());

  const auto compute = spans(trace, 0);
  const auto copies = spans(trace, 1);
  CHECK(compute.size() > 8);
  CHECK(copies.size() > 8);
  std::size_t overlapping = 0;
  for (const Span& copy : copies)
    for (const Span& module : compute)
      if (copy.begin < module.end && module.begin < copy.end) {
        ++overlapping;
        break;
      }
  CHECK(overlapping > 0);

  options.trace.clear();
  CHECK(run("recorded") == traced);  // with the algorithms that are stored now, as graphs
  CHECK(testing::TemporaryDirectory::read(options.tune) == tuned);
  const auto report = nlohmann::json::parse(testing::TemporaryDirectory::read(options.report));
  CHECK(report.at("device").get<std::string>().starts_with("cuda:0 "));
  CHECK(report.at("offload") == "block");
  CHECK(report.at("step_seconds").size() == steps);
  CHECK(report.at("graph_launches") == steps - 1);
  CHECK(report.at("bytes_moved") > 0);
  CHECK(report.at("driver_peak_bytes").is_number_unsigned());  // other processes count too: no bound holds
  CHECK(!report.contains("stalls"));
  const auto without_graphs = nlohmann::json::parse(testing::TemporaryDirectory::read(directory / "traced.json"));
  CHECK(without_graphs.at("graph_launches") == 0);
}

TEST_CASE("ten held-out prompts on a GPU: at least eight pictures show what was asked for") {
  const auto prompts = testing::held_out(testing::repeats(10));
  const std::size_t steps = std::max<std::size_t>(testing::repeats(28), 3);
  CHECK(testing::right(testing::drawn(prompts, steps, "cuda"), prompts) >= prompts.size() * 8 / 10);
}
