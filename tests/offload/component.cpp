#include "ebb/offload/component.hpp"

#include <doctest/doctest.h>

#include <string>
#include <tuple>
#include <vector>

#include "ebb/nn/linear.hpp"

namespace {

using ebb::field;

struct Block {
  static constexpr ebb::Level level = ebb::Level::block;
  ebb::nn::Linear first, second;
  static consteval auto members() { return std::tuple{field{"first", &Block::first}, field{"second", &Block::second}}; }
};
struct Model {
  static constexpr ebb::Level level = ebb::Level::model;
  ebb::nn::Linear in;
  ebb::Repeat<Block> blocks;
  static consteval auto members() { return std::tuple{field{"in", &Model::in}, field{"blocks", &Model::blocks}}; }
};

Model make(std::size_t blocks) {
  Model model{ebb::nn::Linear::make(8, 8), {}};
  for (std::size_t i = 0; i < blocks; ++i)
    model.blocks.push_back({ebb::nn::Linear::make(8, 8), ebb::nn::Linear::make(8, 8)});
  return model;
}

}  // namespace

TEST_CASE("a policy decides how finely a component is cut") {
  Model model = make(3);
  const ebb::Outline outline = ebb::outline_of(model, "transformer");
  const auto units = [&](const char* policy) {
    const auto component = ebb::component_of(outline, nullptr, ebb::OffloadSpec::parse(policy));
    CHECK(component.name == "transformer");
    CHECK(component.root == ebb::id_of(model));
    CHECK(component.residence == ebb::Residence::offloaded);
    return component.units.size();
  };
  CHECK(units("none") == 1);
  CHECK(units("model") == 1);
  CHECK(units("block") == 4);
  CHECK(units("block:2") == 3);
  CHECK(units("leaf") == 7);
  CHECK(units("budget:1G") == 7);
}

TEST_CASE("a unit is entered by every module inside it, by each of them once") {
  Model model = make(2);
  const ebb::Outline outline = ebb::outline_of(model, "transformer");
  const auto whole = ebb::component_of(outline, nullptr, ebb::ModelOffload{});
  CHECK(whole.units[0].modules.size() == 1 + 1 + 2 * 3);
  const auto blocks = ebb::component_of(outline, nullptr, ebb::BlockOffload{2, 1});
  REQUIRE(blocks.units.size() == 2);
  CHECK(blocks.units[0].modules == std::vector{ebb::id_of(model.in)});
  CHECK(blocks.units[1].modules == std::vector{ebb::id_of(model.blocks[0]), ebb::id_of(model.blocks[1]),
                                               ebb::id_of(model.blocks[0].first), ebb::id_of(model.blocks[0].second),
                                               ebb::id_of(model.blocks[1].first), ebb::id_of(model.blocks[1].second)});
  for (const auto& unit : ebb::component_of(outline, nullptr, ebb::LeafOffload{}).units)
    CHECK(unit.modules.size() == 1);
}

TEST_CASE("block level needs blocks") {
  ebb::nn::Linear linear = ebb::nn::Linear::make(8, 8);
  const ebb::Outline outline = ebb::outline_of(linear, "projector");
  CHECK_THROWS_WITH_AS((void)ebb::component_of(outline, nullptr, ebb::BlockOffload{}), doctest::Contains("projector"),
                       ebb::ConfigError);
  Model model = make(1);
  CHECK_THROWS_AS((void)ebb::component_of(ebb::outline_of(model, "m"), nullptr, ebb::BlockOffload{0, 1}),
                  ebb::ConfigError);
}
