#include "common/unipc_multistep.hpp"

#include <unistd.h>

#include <doctest/doctest.h>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/golden.hpp"

namespace {

using ebb::examples::UniPCMultistep;
using ebb::examples::UniPCStep;

class SchedulerDirectory {
 public:
  explicit SchedulerDirectory(const nlohmann::json& config)
      : path_(std::filesystem::temp_directory_path() / ("ebb-unipc-" + std::to_string(getpid()))) {
    std::filesystem::create_directory(path_);
    std::ofstream(path_ / "scheduler_config.json") << config;
  }
  SchedulerDirectory(const SchedulerDirectory&) = delete;
  SchedulerDirectory& operator=(const SchedulerDirectory&) = delete;
  ~SchedulerDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

UniPCMultistep scheduler_of(const nlohmann::json& config) {
  return UniPCMultistep::load(SchedulerDirectory(config).path());
}

nlohmann::json flow(nlohmann::json changes = nlohmann::json::object()) {
  nlohmann::json config{{"prediction_type", "flow_prediction"}, {"use_flow_sigmas", true}, {"flow_shift", 3.0}};
  config.update(changes);
  return config;
}

nlohmann::json schedules() {
  std::ifstream file(EBB_GOLDEN_DIR "/wan_schedules.json");
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

template <class Real, class Bits>
std::vector<Real> decode(const std::string& text) {
  std::vector<Real> values;
  for (std::size_t i = 0; i < text.size(); i += 2 * sizeof(Real))
    values.push_back(
        std::bit_cast<Real>(static_cast<Bits>(std::stoull(text.substr(i, 2 * sizeof(Real)), nullptr, 16))));
  return values;
}
std::vector<float> floats(const nlohmann::json& text) { return decode<float, std::uint32_t>(text.get<std::string>()); }
std::vector<double> doubles(const nlohmann::json& text) {
  return decode<double, std::uint64_t>(text.get<std::string>());
}

/// The steps as `UniPCStep` tells to take them.
class Run {
 public:
  explicit Run(std::vector<float> start) : sample(std::move(start)), last_(sample.size()), data_{last_, last_, last_} {}

  void advance(const UniPCStep& step, std::span<const float> velocity) {
    for (std::size_t i = 0; i < sample.size(); ++i) {
      const double data = double{sample[i]} - double{step.sigma} * double{velocity[i]};
      const double corrected = dot(step.corrector, {last_[i], data_[0][i], data_[1][i], data_[2][i], data, sample[i]});
      const double next = dot(step.predictor, {corrected, data, data_[0][i], data_[1][i]});
      data_[2][i] = data_[1][i];
      data_[1][i] = data_[0][i];
      data_[0][i] = static_cast<float>(data);
      last_[i] = static_cast<float>(corrected);
      sample[i] = static_cast<float>(next);
    }
  }

  std::vector<float> sample;

 private:
  template <std::size_t N>
  static double dot(const std::array<float, N>& weights, const std::array<double, N>& values) {
    double sum = 0;
    for (std::size_t i = 0; i < N; ++i) sum += double{weights[i]} * values[i];
    return sum;
  }

  std::vector<float> last_;
  std::array<std::vector<float>, 3> data_;
};

void check_schedule(const nlohmann::json& entry, const UniPCMultistep& scheduler) {
  const auto sigmas = floats(entry.at("sigmas"));
  CHECK(std::equal(sigmas.begin(), sigmas.end(), scheduler.sigmas().begin(), scheduler.sigmas().end()));
  std::istringstream words(entry.at("timesteps").get<std::string>());
  std::vector<std::int64_t> timesteps;
  for (std::int64_t timestep = 0; words >> timestep;) timesteps.push_back(timestep);
  CHECK(std::equal(timesteps.begin(), timesteps.end(), scheduler.timesteps().begin(), scheduler.timesteps().end()));
}

TEST_CASE("sigmas are bit-equal to those of diffusers, timesteps equal") {
  const nlohmann::json file = schedules();
  REQUIRE(file.at("unipc").size() >= 75);
  REQUIRE(file.at("unipc_timesteps").size() >= 15);
  for (const char* part : {"unipc", "unipc_timesteps"}) {
    for (const nlohmann::json& entry : file.at(part)) {
      CAPTURE(entry.at("config").dump());
      const auto steps = entry.at("steps").get<std::size_t>();
      CAPTURE(steps);
      auto scheduler = scheduler_of(entry.at("config"));
      scheduler.set_timesteps(steps);
      check_schedule(entry, scheduler);
      CHECK(scheduler.steps().size() == steps);
    }
  }
}

TEST_CASE("every sample of random velocities is that of diffusers") {
  const nlohmann::json file = schedules();
  for (const nlohmann::json& entry : file.at("unipc")) {
    CAPTURE(entry.at("config").dump());
    const auto steps = entry.at("steps").get<std::size_t>();
    CAPTURE(steps);
    auto scheduler = scheduler_of(entry.at("config"));
    scheduler.set_timesteps(steps);
    const auto velocities = floats(entry.at("velocities"));
    const auto expected = doubles(entry.at("exact"));
    const auto expected_float = floats(entry.at("samples"));
    Run run(floats(entry.at("start")));
    const std::size_t width = run.sample.size();
    REQUIRE(velocities.size() == steps * width);
    REQUIRE(expected.size() == steps * width);
    REQUIRE(expected_float.size() == steps * width);
    double largest = 1;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    // At order 3 the float32 coefficients of diffusers cancel: it is up to 1.1e-5 from its own float64 result.
    const double float_bound = scheduler.config().order < 3 ? 2e-6 : 2e-5;
    for (std::size_t step = 0; step < steps; ++step) {
      CAPTURE(step);
      run.advance(scheduler.steps()[step], std::span(velocities).subspan(step * width, width));
      for (std::size_t i = 0; i < width; ++i) {
        const double found = double{run.sample[i]};
        CHECK(std::abs(found - expected[step * width + i]) < 1e-6 * largest);
        CHECK(std::abs(found - double{expected_float[step * width + i]}) < float_bound * largest);
      }
    }
  }
}

TEST_CASE("every sample of the tiny Wan pipelines follows from the velocities of their steps") {
  for (const char* name : {"two_blocks", "three_blocks"}) {
    CAPTURE(name);
    const ebb::testing::Golden golden(name, "wan");
    const auto velocities = golden.floats("steps.velocity");
    const auto samples = golden.floats("steps.sample");
    Run run(golden.floats("noise"));
    const std::size_t width = run.sample.size();
    auto scheduler = UniPCMultistep::load(golden.directory() / "scheduler");
    scheduler.set_timesteps(velocities.size() / width);
    REQUIRE(scheduler.steps().size() >= 4);
    for (std::size_t step = 0; step < scheduler.steps().size(); ++step) {
      run.advance(scheduler.steps()[step], std::span(velocities).subspan(step * width, width));
      float worst = 0;
      for (std::size_t i = 0; i < width; ++i)
        worst = std::max(worst, std::abs(run.sample[i] - samples[step * width + i]));
      CHECK(worst < 1e-5f);
    }
  }
}

TEST_CASE("a perfect model's data and noise give every sample between them exactly") {
  const std::vector<float> noise{1.5f, -0.25f, 2.0f};
  const std::vector<float> data{-1.0f, 0.5f, 0.125f};
  std::vector<float> velocity(3);
  for (std::size_t i = 0; i < 3; ++i) velocity[i] = noise[i] - data[i];
  for (const std::size_t order : {1u, 2u, 3u}) {
    for (const std::size_t count : {1u, 2u, 3u, 5u, 30u, 1000u}) {
      CAPTURE(count);
      auto scheduler = scheduler_of(flow({{"solver_order", order}}));
      scheduler.set_timesteps(count);
      Run run(noise);
      for (std::size_t step = 0; step < count; ++step) {
        run.advance(scheduler.steps()[step], velocity);
        const float sigma = scheduler.sigmas()[step + 1];
        for (std::size_t i = 0; i < 3; ++i)
          CHECK(std::abs(run.sample[i] - (sigma * noise[i] + (1.0f - sigma) * data[i])) < 3e-5f);
      }
    }
  }
}

TEST_CASE("the first step has nothing to correct, the last one ends in its data, order 1 looks back once") {
  auto scheduler = scheduler_of(flow({{"solver_order", 3}, {"disable_corrector", {2}}}));
  scheduler.set_timesteps(5);
  const auto steps = scheduler.steps();
  CHECK(steps[0].corrector == std::array{0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 1.0f});
  CHECK(steps[1].corrector[5] == 0.0f);
  CHECK(steps[3].corrector == steps[0].corrector);
  CHECK(steps[4].predictor == std::array{0.0f, 1.0f, 0.0f, 0.0f});
  CHECK(steps[0].predictor[2] == 0.0f);
  CHECK(steps[1].predictor[2] != 0.0f);
  CHECK(steps[1].predictor[3] == 0.0f);
  CHECK(steps[2].predictor[3] != 0.0f);
  CHECK(steps[3].predictor[3] == 0.0f);  // order 2, two steps before the end
  CHECK(steps[0].sigma == scheduler.sigmas()[0]);
}

void check_refused(const nlohmann::json& config, const char* field) {
  CAPTURE(config.dump());
  try {
    scheduler_of(config);
    FAIL_CHECK("accepted");
  } catch (const ebb::ConfigError& error) {
    CHECK(std::string(error.what()).find(field) != std::string::npos);
  }
}

TEST_CASE("values that are not supported are refused by the field's name") {
  check_refused(nlohmann::json::object(), "prediction_type");
  check_refused({{"prediction_type", "flow_prediction"}}, "use_flow_sigmas");
  const std::vector<std::pair<const char*, nlohmann::json>> refused{{"prediction_type", "epsilon"},
                                                                    {"use_flow_sigmas", false},
                                                                    {"predict_x0", false},
                                                                    {"lower_order_final", false},
                                                                    {"thresholding", true},
                                                                    {"use_karras_sigmas", true},
                                                                    {"use_exponential_sigmas", true},
                                                                    {"use_beta_sigmas", true},
                                                                    {"use_dynamic_shifting", true},
                                                                    {"solver_p", {{"order", 1}}},
                                                                    {"final_sigmas_type", "sigma_min"},
                                                                    {"shift_terminal", 0.1},
                                                                    {"solver_type", "bh1"},
                                                                    {"solver_order", 0},
                                                                    {"solver_order", 4},
                                                                    {"num_train_timesteps", 0},
                                                                    {"flow_shift", 0},
                                                                    {"flow_shift", -3.0},
                                                                    {"flow_shift", "3"},
                                                                    {"disable_corrector", {-1}},
                                                                    {"disable_corrector", true}};
  for (const auto& [field, value] : refused) check_refused(flow({{field, value}}), field);
  CHECK_NOTHROW(
      scheduler_of(flow({{"solver_p", nullptr}, {"shift_terminal", nullptr}, {"disable_corrector", nullptr}})));
}

TEST_CASE("a run without falling noise levels is refused, and the schedule before it kept") {
  auto scheduler = scheduler_of(flow({{"flow_shift", 16.0}}));
  CHECK(scheduler.steps().empty());
  scheduler.set_timesteps(3);
  CHECK_THROWS_AS(scheduler.set_timesteps(0), ebb::ConfigError);
  CHECK_THROWS_AS(scheduler.set_timesteps(100'001), ebb::ConfigError);
  CHECK_THROWS_AS(scheduler.set_timesteps(100'000), ebb::ConfigError);  // the second sigma is above 1 - 1e-6
  CHECK(scheduler.steps().size() == 3);
  auto steep = scheduler_of(flow({{"flow_shift", 1e12}}));
  CHECK_THROWS_AS(steep.set_timesteps(2), ebb::ConfigError);
}

}  // namespace
