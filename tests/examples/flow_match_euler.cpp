#include "common/flow_match_euler.hpp"

#include <doctest/doctest.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ebb/host.hpp"

namespace {

using ebb::examples::FlowMatchEuler;

class SchedulerDirectory {
 public:
  explicit SchedulerDirectory(const nlohmann::json& config)
      : path_(std::filesystem::temp_directory_path() / ("ebb-scheduler-" + std::to_string(getpid()))) {
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

FlowMatchEuler scheduler_of(const nlohmann::json& config) {
  return FlowMatchEuler::load(SchedulerDirectory(config).path());
}

nlohmann::json golden(const char* name = "/schedules.json") {
  std::ifstream file(std::string(EBB_GOLDEN_DIR) + name);
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

template <ebb::Element T>
std::vector<T> decode(const std::string& text) {
  constexpr std::size_t digits = 2 * sizeof(T);
  std::vector<T> values;
  for (std::size_t i = 0; i < text.size(); i += digits) {
    const auto bits = static_cast<std::uint32_t>(std::stoul(text.substr(i, digits), nullptr, 16));
    if constexpr (std::is_same_v<T, float>)
      values.push_back(std::bit_cast<float>(bits));
    else
      values.push_back(T::from_bits(static_cast<std::uint16_t>(bits)));
  }
  return values;
}

bool same_bits(std::span<const float> found, const std::vector<float>& expected) {
  return std::equal(found.begin(), found.end(), expected.begin(), expected.end(), [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
  });
}

const nlohmann::json dev{{"use_dynamic_shifting", true}, {"shift", 3.0}, {"base_shift", 0.5}, {"max_shift", 1.15}};

template <ebb::Element T>
void take_step(const ebb::examples::FlowMatchEuler& scheduler, std::size_t index, std::vector<T>& velocity,
               std::vector<T>& sample) {
  ebb::Workspace workspace;
  const ebb::host::Context<T> ctx(workspace, 1);
  const float width = scheduler.step_width<T>(index);
  add_scaled(ctx, ebb::Matrix<const T>(velocity.data(), 1, velocity.size()), std::span(&width, 1),
             ebb::Matrix<T>(sample.data(), 1, sample.size()));
}

template <ebb::Element T>
void check_steps(const nlohmann::json& file, const nlohmann::json& samples) {
  const nlohmann::json& schedule = file.at("step_schedule");
  auto scheduler = scheduler_of(schedule.at("config"));
  scheduler.set_timesteps(schedule.at("steps").get<std::size_t>(), schedule.at("tokens").get<std::size_t>());
  auto sample = decode<T>(samples.at("start").get<std::string>());
  std::size_t index = 0;
  for (const nlohmann::json& step : samples.at("steps")) {
    CAPTURE(index);
    auto velocity = decode<T>(step.at("velocity").get<std::string>());
    take_step(scheduler, index++, velocity, sample);
    const auto expected = decode<T>(step.at("sample").get<std::string>());
    REQUIRE(sample.size() == expected.size());
    CHECK(std::equal(sample.begin(), sample.end(), expected.begin(),
                     [](T a, T b) { return static_cast<float>(a) == static_cast<float>(b); }));
  }
  CHECK(index == scheduler.timesteps().size());
}

TEST_CASE("sigmas and timesteps are bit-equal to those of diffusers") {
  const nlohmann::json file = golden();
  REQUIRE(file.at("schedules").size() >= 40);
  for (const nlohmann::json& entry : file.at("schedules")) {
    CAPTURE(entry.at("config").dump());
    const auto steps = entry.at("steps").get<std::size_t>();
    const auto tokens = entry.at("tokens").get<std::size_t>();
    CAPTURE(steps);
    CAPTURE(tokens);
    auto scheduler = scheduler_of(entry.at("config"));
    scheduler.set_timesteps(steps, tokens);
    CHECK(same_bits(scheduler.sigmas(), decode<float>(entry.at("sigmas").get<std::string>())));
    CHECK(same_bits(scheduler.timesteps(), decode<float>(entry.at("timesteps").get<std::string>())));
  }
}

TEST_CASE("sigmas and timesteps of a run that leaves them to the scheduler are bit-equal to those of diffusers") {
  const nlohmann::json file = golden("/wan_schedules.json");
  REQUIRE(file.at("euler").size() >= 25);
  for (const nlohmann::json& entry : file.at("euler")) {
    CAPTURE(entry.at("config").dump());
    const auto steps = entry.at("steps").get<std::size_t>();
    CAPTURE(steps);
    auto scheduler = scheduler_of(entry.at("config"));
    scheduler.set_timesteps(steps);
    CHECK(same_bits(scheduler.sigmas(), decode<float>(entry.at("sigmas").get<std::string>())));
    CHECK(same_bits(scheduler.timesteps(), decode<float>(entry.at("timesteps").get<std::string>())));
  }
}

TEST_CASE("a step rounds as PyTorch rounds it, in float32, bfloat16 and float16") {
  const nlohmann::json file = golden();
  std::size_t checked = 0;
  for (const nlohmann::json& samples : file.at("samples")) {
    const auto dtype = samples.at("dtype").get<std::string>();
    CAPTURE(dtype);
    if (dtype == "float32") check_steps<float>(file, samples), ++checked;
    if (dtype == "bfloat16") check_steps<ebb::bfloat16>(file, samples), ++checked;
    if (dtype == "float16") check_steps<ebb::float16>(file, samples), ++checked;
  }
  CHECK(checked == 3);
}

TEST_CASE("mu of the published picture sizes") {
  const auto scheduler = scheduler_of(dev);
  CHECK(scheduler.mu(4096) == doctest::Approx(1.15).epsilon(1e-12));
  CHECK(scheduler.mu(1024) == doctest::Approx(0.63).epsilon(1e-12));
  CHECK(scheduler.mu(4080) == doctest::Approx(1.1472917).epsilon(1e-7));
}

TEST_CASE("the 28 steps of FLUX.1-dev at 1024 x 1024, and the 4 of FLUX.1-schnell") {
  auto scheduler = scheduler_of(dev);
  scheduler.set_timesteps(28, 4096);
  constexpr std::array expected{1.0,     .988409, .976222, .963394, .949873, .935599, .920509, .904531,
                                .887583, .869576, .850406, .829956, .808095, .784672, .759511, .732413,
                                .703145, .671435, .636964, .599357, .558163, .512844, .462748, .407078,
                                .344849, .274828, .195455, .104721, 0.0};
  REQUIRE(scheduler.sigmas().size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(std::abs(static_cast<double>(scheduler.sigmas()[i]) - expected[i]) <= 6e-7);
  auto schnell = scheduler_of({{"shift", 1.0}});
  schnell.set_timesteps(4, 4096);
  CHECK(same_bits(schnell.sigmas(), {1.0f, 0.75f, 0.5f, 0.25f, 0.0f}));
  schnell.set_timesteps(38335, 4096);  // where one minus the sum of all spacings is not yet 1 / steps
  CHECK(schnell.sigmas()[38334] == static_cast<float>(1.0 / 38335));
}

TEST_CASE("a perfect model's constant velocity leads from the noise to the picture in any number of steps") {
  const std::vector<float> noise{1.5f, -0.25f, 2.0f};
  const std::vector<float> picture{-1.0f, 0.5f, 0.125f};
  std::vector<float> velocity(3);
  for (std::size_t i = 0; i < 3; ++i) velocity[i] = noise[i] - picture[i];
  for (const std::size_t steps : {1u, 2u, 5u, 28u, 50u}) {
    auto scheduler = scheduler_of(dev);
    scheduler.set_timesteps(steps, 777);
    std::vector<float> sample = noise;
    for (std::size_t i = 0; i < steps; ++i) take_step(scheduler, i, velocity, sample);
    for (std::size_t i = 0; i < 3; ++i) CHECK(std::abs(sample[i] - picture[i]) < 2e-6f);
  }
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

TEST_CASE("values that are not supported, or make no schedule, are refused by the field's name") {
  check_refused({{"use_karras_sigmas", true}}, "use_karras_sigmas");
  check_refused({{"use_exponential_sigmas", true}}, "use_exponential_sigmas");
  check_refused({{"use_beta_sigmas", true}}, "use_beta_sigmas");
  check_refused({{"stochastic_sampling", true}}, "stochastic_sampling");
  check_refused({{"time_shift_type", "cubic"}}, "time_shift_type");
  check_refused({{"shift", 0}}, "shift");
  check_refused({{"shift", "3"}}, "shift");
  check_refused({{"shift_terminal", 1.0}}, "shift_terminal");
  check_refused({{"num_train_timesteps", 0}}, "num_train_timesteps");
  check_refused({{"use_dynamic_shifting", true}, {"max_image_seq_len", 256}}, "max_image_seq_len");
  CHECK_NOTHROW(scheduler_of({{"use_karras_sigmas", false}, {"stochastic_sampling", nullptr}}));
}

TEST_CASE("schedules that would not be finite are refused") {
  auto scheduler = scheduler_of(dev);
  CHECK_THROWS_AS(scheduler.set_timesteps(0, 4096), ebb::ConfigError);
  auto steep = scheduler_of({{"use_dynamic_shifting", true}, {"max_shift", 1e6}});
  CHECK_THROWS_AS(steep.set_timesteps(4, 4096), ebb::ConfigError);
  auto negative = scheduler_of({{"use_dynamic_shifting", true}, {"time_shift_type", "linear"}, {"base_shift", -2.0}});
  CHECK_THROWS_AS(negative.set_timesteps(4, 256), ebb::ConfigError);
  auto terminal = scheduler_of({{"shift_terminal", 0.1}});
  CHECK_THROWS_AS(terminal.set_timesteps(1, 1), ebb::ConfigError);
  CHECK_THROWS_AS(terminal.set_timesteps(1), ebb::ConfigError);
  CHECK_THROWS_AS(scheduler.set_timesteps(4), ebb::ConfigError);  // needs an image size
}

TEST_CASE("a failed set_timesteps keeps the schedule, and steps outside of it are refused") {
  auto scheduler = scheduler_of(dev);
  CHECK_THROWS_AS(scheduler.step_width<float>(0), ebb::ShapeError);
  scheduler.set_timesteps(2, 4096);
  CHECK_THROWS_AS(scheduler.set_timesteps(0, 4096), ebb::ConfigError);
  CHECK(scheduler.timesteps().size() == 2);
  CHECK_THROWS_AS(scheduler.step_width<float>(2), ebb::ShapeError);
}

}  // namespace
