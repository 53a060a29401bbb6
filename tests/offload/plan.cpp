#include "ebb/offload/plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace {

ebb::Component component(const std::string& name, const std::vector<std::size_t>& granules) {
  ebb::Component result{.name = name};
  std::size_t offset = 0;
  for (const std::size_t each : granules) {
    result.units.push_back({name + std::to_string(result.units.size()), offset, offset + each * 256, {}});
    offset += each * 256;
  }
  return result;
}

std::vector<ebb::Component> pipeline() {
  return {component("text_encoder", {2, 2, 2}), component("transformer", {1, 8, 8, 8, 8, 1}), component("vae", {3})};
}

std::size_t streamed(const ebb::Plan& plan, std::size_t index) {
  std::size_t count = 0;
  for (const ebb::PlacedUnit& unit : plan.units)
    count += unit.component == index && unit.placing == ebb::Placing::streamed;
  return count;
}

}  // namespace

TEST_CASE("without offloading everything has a place of its own, or none when the device reads home memory") {
  const auto components = pipeline();
  const ebb::Plan plan = ebb::make_plan(ebb::NoOffload{}, components);
  CHECK(plan.arena_bytes == 43 * 256);
  CHECK(plan.units.size() == 10);
  for (const auto& left : plan.units)
    for (const auto& right : plan.units) {
      CHECK(left.placing == ebb::Placing::resident);
      if (&left != &right)
        CHECK((left.offset + left.bytes <= right.offset || right.offset + right.bytes <= left.offset));
    }
  const ebb::Plan home = ebb::make_plan(ebb::NoOffload{}, components, ebb::HomeMemory::computable);
  CHECK(home.arena_bytes == 0);
  for (const auto& unit : home.units) CHECK(unit.placing == ebb::Placing::in_place);
}

TEST_CASE("block and leaf level: the largest component decides, within the promise") {
  const auto components = pipeline();
  const ebb::Plan one = ebb::make_plan(ebb::BlockOffload{1, 0}, components);
  CHECK(one.arena_bytes == 8 * 256);
  const ebb::Plan two = ebb::make_plan(ebb::BlockOffload{1, 1}, components);
  CHECK(two.arena_bytes == 16 * 256);
  CHECK(two.bound_bytes == 16 * 256);
  CHECK(two.components[1].streamed_bytes == 34 * 256);
  CHECK(two.components[1].resident_bytes == 0);
  const ebb::Plan roomy = ebb::make_plan(ebb::LeafOffload{100}, components);
  CHECK(roomy.arena_bytes == 34 * 256);
  CHECK(roomy.components[1].streamed_bytes == 0);  // all units have room at once: nothing moves in later passes
  CHECK(streamed(two, 1) == 6);
}

TEST_CASE("peaks are ordered: leaf <= block <= model <= none") {
  std::vector<std::size_t> leaves(48, 4), blocks(12, 16), whole{192};
  const auto bytes = [](const auto& policy, const std::vector<std::size_t>& granules) {
    const std::vector<ebb::Component> components{component("a", granules), component("b", granules)};
    return ebb::make_plan(policy, components).arena_bytes;
  };
  const std::size_t leaf = bytes(ebb::LeafOffload{}, leaves), block = bytes(ebb::BlockOffload{}, blocks),
                    model = bytes(ebb::ModelOffload{}, whole), none = bytes(ebb::NoOffload{}, whole);
  CHECK(leaf == 3 * 4 * 256);
  CHECK(block == 2 * 16 * 256);
  CHECK(model == 192 * 256);
  CHECK(none == 2 * 192 * 256);
}

TEST_CASE("excluded components keep a place of their own") {
  auto components = pipeline();
  const std::vector<std::string> names{"vae"};
  ebb::exclude(components, names);
  const ebb::Plan plan = ebb::make_plan(ebb::BlockOffload{1, 1}, components);
  CHECK(plan.arena_bytes == 19 * 256);
  CHECK(plan.units.back().placing == ebb::Placing::resident);
  for (std::size_t i = 0; i + 1 < plan.units.size(); ++i) CHECK(plan.units[i].offset >= 3 * 256);
  CHECK(ebb::make_plan(ebb::BlockOffload{1, 1}, components, ebb::HomeMemory::computable).arena_bytes == 16 * 256);
  const std::vector<std::string> unknown{"unet"};
  CHECK_THROWS_WITH_AS(ebb::exclude(components, unknown),
                       "cannot exclude 'unet' from offloading: the components are text_encoder, transformer, vae",
                       ebb::ConfigError);
}

TEST_CASE("a budget is kept, used, and decides how little streams") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::size_t> granules(1 + random() % 30);
    std::size_t total = 0, largest = 0;
    for (std::size_t& each : granules) {
      each = random() % 6 == 0 ? 0 : 1 + random() % 40;
      total += each * 256;
      largest = std::max(largest, each * 256);
    }
    const std::vector<ebb::Component> components{component("model", granules)};
    for (std::size_t budget = largest; budget <= total; budget += 1 + total / 7) {
      const ebb::Plan plan = ebb::make_plan(ebb::Budget{budget, 2}, components);
      REQUIRE(plan.arena_bytes <= budget);
      REQUIRE(plan.bound_bytes == budget);
      REQUIRE(plan.components[0].resident_bytes + plan.components[0].streamed_bytes == total);
      REQUIRE(plan.arena_bytes + 3 * largest >= budget);
    }
    REQUIRE(ebb::make_plan(ebb::Budget{total, 2}, components).components[0].streamed_bytes == 0);
  }
}

TEST_CASE("a budget spreads what streams evenly over the order of execution") {
  const std::vector<ebb::Component> components{component("transformer", std::vector<std::size_t>(40, 10))};
  const ebb::Plan plan = ebb::make_plan(ebb::Budget{210 * 256, 1}, components);  // about half, and two slots
  CHECK(plan.components[0].lookahead == 1);
  CHECK(plan.components[0].ring_bytes <= 40 * 256);
  CHECK(streamed(plan, 0) == 21);
  CHECK(plan.arena_bytes == 210 * 256);
  std::size_t run = 0, longest = 0;
  for (const auto& unit : plan.units) {
    run = unit.placing == ebb::Placing::streamed ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  CHECK(longest <= 2);
}

TEST_CASE("a budget keeps small units resident and gives up lookahead before it fails") {
  std::vector<std::size_t> granules;
  for (int block = 0; block < 10; ++block) granules.insert(granules.end(), {64, 1, 64, 1});
  const std::vector<ebb::Component> components{component("transformer", granules)};
  const ebb::Plan plan = ebb::make_plan(ebb::Budget{400 * 256, 2}, components);
  for (const auto& unit : plan.units)
    if (unit.bytes == 256) CHECK(unit.placing == ebb::Placing::resident);
  const ebb::Plan tight = ebb::make_plan(ebb::Budget{64 * 256, 2}, components);
  CHECK(tight.components[0].lookahead == 0);
  CHECK(tight.arena_bytes == 64 * 256);
  CHECK_THROWS_WITH_AS(
      (void)ebb::make_plan(ebb::Budget{64 * 256 - 1, 2}, components),
      "offload: a budget of 16383 bytes is too small: at least 16384 bytes are needed, 0 for components excluded from "
      "offloading and 16384 for the largest unit (transformer transformer0); use budget:16KiB or more, exclude less, "
      "or quantize to a smaller format",
      ebb::MemoryError);
}

TEST_CASE("components that fit a budget together do not share places") {
  const auto components = pipeline();
  const ebb::Plan together = ebb::make_plan(ebb::Budget{43 * 256, 2}, components);
  CHECK(together.arena_bytes == 43 * 256);
  const ebb::Plan apart = ebb::make_plan(ebb::Budget{42 * 256, 2}, components);
  CHECK(apart.arena_bytes == 34 * 256);  // each is wholly resident while it runs
  CHECK(apart.components[1].streamed_bytes == 0);
  auto excluded = pipeline();
  excluded[1].residence = ebb::Residence::resident;
  CHECK_THROWS_AS((void)ebb::make_plan(ebb::Budget{35 * 256, 2}, excluded), ebb::MemoryError);
  CHECK(ebb::make_plan(ebb::Budget{37 * 256, 2}, excluded).arena_bytes == 37 * 256);
}

TEST_CASE("empty pipelines, empty units, and units that are out of order or misaligned") {
  CHECK(ebb::make_plan(ebb::LeafOffload{}, {}).arena_bytes == 0);
  const std::vector<ebb::Component> empty{component("empty", {0, 0}), component("nothing", {})};
  for (const auto& spec : {"none", "model", "block", "leaf", "budget:0"})
    CHECK(ebb::make_plan(ebb::OffloadSpec::parse(spec), empty).arena_bytes == 0);
  std::vector<ebb::Component> bad{component("bad", {2, 2})};
  bad[0].units[1].begin = 256;
  CHECK_THROWS_AS((void)ebb::make_plan(ebb::LeafOffload{}, bad), ebb::ConfigError);
  bad[0].units[1].begin = 513;
  CHECK_THROWS_AS((void)ebb::make_plan(ebb::LeafOffload{}, bad), ebb::ConfigError);
}

TEST_CASE("a transient component passes through a small ring under every policy") {
  auto components = pipeline();
  components.push_back(component("conditioning", {2, 2, 2, 2, 2, 2}));
  components.back().residence = ebb::Residence::transient;
  const ebb::Plan none = ebb::make_plan(ebb::NoOffload{}, components);
  CHECK(none.arena_bytes == (43 + 6) * 256);  // three units of the six beside everything else
  CHECK(streamed(none, 3) == 6);
  const ebb::Plan model = ebb::make_plan(ebb::ModelOffload{}, components);
  CHECK(model.arena_bytes == ebb::make_plan(ebb::ModelOffload{}, pipeline()).arena_bytes);
  CHECK(streamed(model, 3) == 6);
  const ebb::Plan home = ebb::make_plan(ebb::NoOffload{}, components, ebb::HomeMemory::computable);
  CHECK(home.arena_bytes == 0);
}
