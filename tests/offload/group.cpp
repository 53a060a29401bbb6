#include "ebb/offload/group.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "../support/offload_scenario.hpp"
#include "../support/simulated_backend.hpp"
#include "ebb/memory/storage.hpp"

namespace {

using ebb::test::components_of;
using ebb::test::make_model;
using ebb::test::Model;
using ebb::test::Modules;
using ebb::test::Outcome;
using ebb::test::policies;
using ebb::test::SimulatedBackend;
using ebb::test::unknown_offset;
using ebb::test::upto;

template <class Policy>
using Run = ebb::test::Run<Policy, SimulatedBackend>;

Outcome run_random(std::uint64_t seed, SimulatedBackend::Fault fault = {}) {
  return ebb::test::run_random<SimulatedBackend>(seed, fault);
}

}  // namespace

TEST_CASE("random pipelines compute on the right bytes in every order of streams that is allowed") {
  for (std::uint64_t seed = 1; seed <= 10000; ++seed) {
    const Outcome outcome = run_random(seed);
    CAPTURE(seed);
    REQUIRE(outcome.violation == "");
  }
}

TEST_CASE("the simulation finds a wait that is left out") {
  for (const SimulatedBackend::Stream stream : {SimulatedBackend::compute_stream, SimulatedBackend::copy_stream}) {
    std::size_t scenarios = 0, waits = 0, caught = 0;
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      const Outcome sound = run_random(seed);
      const std::size_t issued = stream == 0 ? sound.compute_waits : sound.copy_waits;
      if (issued == 0) continue;
      for (std::size_t drop = 0; drop < issued; ++drop, ++waits)
        if (!run_random(seed, {stream, drop}).violation.empty()) ++caught;
      ++scenarios;
    }
    CAPTURE(stream);
    CAPTURE(waits);
    CHECK(scenarios >= 30);
    CHECK(caught * 10 >= waits);  // a single schedule shows many of the races; thousands of seeds show all
  }
}

TEST_CASE("each single wait of a small pipeline matters: some schedule fails without it") {
  // Three units in two places, two passes: every wait issued protects something.
  const auto fails = [](SimulatedBackend::Stream stream, std::size_t drop) {
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
      Modules modules;
      std::vector<Model> models;
      models.push_back(make_model("transformer", {4, 4, 4}, modules));
      Run<ebb::BlockOffload> run({1, 1}, components_of(models), seed, {stream, drop});
      for (int pass = 0; pass < 2; ++pass) run.pass(0, upto(3));
      run.device.synchronize(0);
      run.device.synchronize(1);
      if (!run.device.violation().empty()) return true;
    }
    return false;
  };
  for (std::size_t drop = 0; drop < 5; ++drop) CHECK(fails(SimulatedBackend::compute_stream, drop));
  for (std::size_t drop = 0; drop < 3; ++drop) CHECK(fails(SimulatedBackend::copy_stream, drop));
}

TEST_CASE("prefetching wraps round to the next pass: only a cold start misses") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("transformer", {4, 4, 4, 4, 4, 4}, modules));
  Run<ebb::BlockOffload> run({1, 1}, components_of(models), 1);
  for (int step = 0; step < 5; ++step) run.pass(0, upto(6));
  CHECK(run.misses() == 0);
  CHECK(run.group.statistics().copies == 5 * 6 + 1);  // the last pass prefetched for one that never came
  CHECK(run.plan.arena_bytes == 2 * 4 * 256);
  CHECK(run.group.statistics().passes == 5);
}

TEST_CASE("no copy is wasted when the last pass is announced") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("transformer", {4, 4, 4, 4}, modules));
  Run<ebb::BlockOffload> run({1, 1}, components_of(models), 1);
  run.pass(0, upto(4));
  run.group.expect_no_more(0);
  run.pass(0, upto(4));
  CHECK(run.group.statistics().copies == 8);
  run.pass(0, upto(4));  // announced in vain: still right
  run.device.synchronize(0);
  CHECK(run.device.violation() == "");
}

TEST_CASE("weights that were forgotten in the middle of a pass are fetched again") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("transformer", {4, 4, 4, 4}, modules));
  for (const ebb::OffloadSpec& policy : policies) {
    CAPTURE(policy.text());
    Run<ebb::OffloadSpec> run(policy, components_of(models), 1);
    run.pass(0, upto(4));
    run.pass(0, {0, 1});
    run.group.forget();
    CHECK(run.group.state().present.empty());
    const std::size_t before = run.group.statistics().copies;
    run.pass(0, upto(4));
    CHECK(run.group.statistics().copies >= before + 4);
    CHECK(run.group.peak_bytes() <= run.plan.arena_bytes);
    run.device.synchronize(0);
    CHECK(run.device.violation() == "");
  }
}

TEST_CASE("without root calls, passes are found in the units that are entered") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("vae", {4, 4, 4, 4}, modules));
  Run<ebb::BlockOffload> run({1, 1}, components_of(models), 1);
  for (int step = 0; step < 4; ++step)
    for (std::size_t unit = 0; unit < 4; ++unit) run.call(0, unit);
  CHECK(run.group.statistics().passes == 4);
  CHECK(run.misses() == 1);
}

TEST_CASE("an execution order unlike the member order is learnt in one pass") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("model", {4, 4, 4, 4, 4}, modules));
  Run<ebb::LeafOffload> run(ebb::LeafOffload{1}, components_of(models), 3);
  const std::vector<std::size_t> order{0, 3, 4, 1, 2};  // neighbours keep places apart
  run.pass(0, order);
  const std::size_t cold = run.misses();
  CHECK(cold > 0);
  for (int pass = 0; pass < 3; ++pass) run.pass(0, order);
  CHECK(run.misses() == cold);
  run.device.synchronize(0);
  CHECK(run.device.violation() == "");
}

TEST_CASE("modules that run twice and modules that run only sometimes") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("model", {4, 2, 6, 4}, modules));
  for (std::uint64_t seed = 1; seed < 50; ++seed) {
    Run<ebb::LeafOffload> run(ebb::LeafOffload{1}, components_of(models), seed);
    for (const auto& order : std::vector<std::vector<std::size_t>>{
             {0, 1, 3}, {0, 1, 2, 3}, {0, 1, 3}, {0, 1, 0, 1, 2, 3, 0}, {0, 1, 0, 1, 2, 3, 0}, {}, {3, 3, 3}, {2}})
      run.pass(0, order);
    run.device.synchronize(0);
    CHECK(run.device.violation() == "");
  }
}

TEST_CASE("model level: one component at a time, the largest decides the bytes") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("text_encoder", {10}, modules));
  models.push_back(make_model("transformer", {30}, modules));
  models.push_back(make_model("vae", {5}, modules));
  Run<ebb::ModelOffload> run({}, components_of(models), 7);
  CHECK(run.plan.arena_bytes == 30 * 256);
  run.call(0, 0);
  for (int step = 0; step < 4; ++step) run.call(1, 0);
  run.call(2, 0);
  CHECK(run.group.statistics().copies == 3);
  CHECK(run.group.statistics(1).copies == 1);
  CHECK(run.group.statistics().bytes_moved == 45 * 256);
  CHECK(run.group.peak_bytes() == 30 * 256);
  run.device.synchronize(0);
  CHECK(run.device.violation() == "");
}

TEST_CASE("a second lease keeps a unit in place; what would overwrite it is refused by name") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("transformer", {4, 4, 4}, modules));
  Run<ebb::BlockOffload> run({1, 0}, components_of(models), 1);
  const auto& units = run.components[0].units;
  {
    const auto first = run.group.enter(units[0].modules[0]);
    CHECK_THROWS_WITH_AS((void)run.group.enter(units[1].modules[0]),
                         "offload block: transformer 'unit1' needs the place of transformer 'unit0', which is still "
                         "in use; modules that compute together must be in one unit, or the policy needs more "
                         "lookahead",
                         ebb::MemoryError);
    run.work(0, 0);
  }
  run.call(0, 1);
  run.device.synchronize(0);
  CHECK(run.device.violation() == "");
}

TEST_CASE("unknown modules give empty leases, tables stay at home, empty units never move") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("model", {0, 3, 0, 2, 0}, modules));
  Run<ebb::LeafOffload> run(ebb::LeafOffload{1}, components_of(models), 1);
  CHECK_FALSE(run.group.enter(modules.make()));
  CHECK_FALSE(run.group.enter(run.components[0].units[0].modules[0]));
  CHECK(run.group.address(0, 0) == run.components[0].home);
  CHECK(run.group.address(0, unknown_offset) == run.arena.data());
  run.pass(0, upto(5));
  CHECK(run.group.statistics().copies == 2);
  CHECK(run.group.component("model") == 0);
  CHECK_THROWS_WITH_AS((void)run.group.component("vae"),
                       "offload: there is no component 'vae'; the components are model", ebb::ConfigError);
}

TEST_CASE("a module in two components, an arena that is too small, events that leak") {
  Modules modules;
  std::vector<Model> models;
  models.push_back(make_model("a", {3}, modules));
  models.push_back(make_model("b", {3}, modules));
  auto components = components_of(models);
  components[1].units[0].modules = components[0].units[0].modules;
  CHECK_THROWS_WITH_AS(Run<ebb::LeafOffload>({1}, components, 1),
                       "offload: one module belongs to two units (a unit0 and b unit0); a module can be offloaded "
                       "only once",
                       ebb::ConfigError);
  components = components_of(models);
  SimulatedBackend device(1, nullptr, 0);
  const auto construct = [&] {
    ebb::OffloadGroup<ebb::LeafOffload, SimulatedBackend> group({1}, device, 0, 1, components, {});
  };
  CHECK_THROWS_AS(construct(), ebb::MemoryError);
  CHECK(device.live_events == 0);
  {
    std::vector<std::byte> memory(4096);
    ebb::AlignedBuffer arena(4096);
    ebb::OffloadGroup<ebb::LeafOffload, SimulatedBackend> group({1}, device, 0, 1, components, arena.bytes());
    CHECK(device.live_events == 4);
  }
  CHECK(device.live_events == 0);
}
