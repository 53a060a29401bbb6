#include "wan/sampler.hpp"

#include <doctest/doctest.h>

#include <span>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"
#include "support/temporary_directory.hpp"
#include "wan/pipeline.hpp"

using namespace ebb;

TEST_CASE("a scheduler that begins with data is refused, not divided by its zero") {
  const testing::TemporaryDirectory directory;
  directory.write("scheduler_config.json", R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0,
                                               "invert_sigmas": true})");
  const auto sampler = wan::Sampler::load(directory.path(), "FlowMatchEulerDiscreteScheduler");
  CHECK_THROWS_WITH_AS((void)sampler.schedule(4, {}), doctest::Contains("invert_sigmas"), ConfigError);
}

TEST_CASE("every sample of the tiny Wan pipelines follows from the velocities of their steps, by either scheduler") {
  for (const char* name : {"two_blocks", "one_block", "three_blocks"}) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    const auto model = wan::Model::open(golden.directory());
    const auto noise = golden.floats("noise"), velocities = golden.floats("steps.velocity"),
               samples = golden.floats("steps.sample");
    const std::size_t steps = golden.shape("steps.sample")[0];
    REQUIRE(steps >= 3);
    const auto schedule = model.sampler.schedule(steps, {});
    CHECK(schedule.timesteps == golden.numbers("scheduler.timesteps"));
    testing::Host<float> host;
    const auto state = wan::detail::SamplerState::make(host.ctx, noise, 1, noise.size());
    for (std::size_t step = 0; step < steps; ++step) {
      CAPTURE(step);
      upload(host.ctx, std::span(velocities).subspan(step * noise.size(), noise.size()), state.velocity.elements());
      state.advance(host.ctx, std::span(schedule.coefficients)
                                  .subspan(step * wan::SamplerSchedule::coefficients_per_step,
                                           wan::SamplerSchedule::coefficients_per_step));
      CHECK(testing::relative_error<float>(state.sample.elements(),
                                           std::span(samples).subspan(step * noise.size(), noise.size())) < 1e-6);
    }
  }
}
