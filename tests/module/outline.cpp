#include "ebb/module/outline.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "ebb/nn/embedding.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/nn/norm.hpp"

namespace {

using ebb::field;

struct Block {
  static constexpr ebb::Level level = ebb::Level::block;
  ebb::nn::Linear first;
  ebb::Maybe<ebb::nn::RMSNorm> norm;
  ebb::nn::Linear second;
  static consteval auto members() {
    return std::tuple{field{"first", &Block::first}, field{"norm", &Block::norm}, field{"mlp.2", &Block::second}};
  }
};

struct Model {
  static constexpr ebb::Level level = ebb::Level::model;
  ebb::nn::Linear in;
  ebb::nn::Embedding table;
  ebb::Repeat<Block> blocks;
  ebb::nn::Linear out;
  int config = 0;
  static consteval auto members() {
    return std::tuple{field{"in", &Model::in}, field{"table", &Model::table}, field{"blocks", &Model::blocks},
                      field{"out", &Model::out}};
  }
};
static_assert(ebb::Module<Block> && ebb::Module<Model> && !ebb::LeafModule<Block>);

struct Forgetful {  // lists one of two members
  ebb::Vector listed, forgotten;
  static consteval auto members() { return std::tuple{field{"listed", &Forgetful::listed}}; }
};
static_assert(!ebb::Module<Forgetful>);

template <bool complete>
struct Wide {  // without `complete`, y is forgotten
  ebb::Vector a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y;
  static consteval auto members() {
    constexpr std::tuple most{field{"a", &Wide::a}, field{"b", &Wide::b}, field{"c", &Wide::c}, field{"d", &Wide::d},
                              field{"e", &Wide::e}, field{"f", &Wide::f}, field{"g", &Wide::g}, field{"h", &Wide::h},
                              field{"i", &Wide::i}, field{"j", &Wide::j}, field{"k", &Wide::k}, field{"l", &Wide::l},
                              field{"m", &Wide::m}, field{"n", &Wide::n}, field{"o", &Wide::o}, field{"p", &Wide::p},
                              field{"q", &Wide::q}, field{"r", &Wide::r}, field{"s", &Wide::s}, field{"t", &Wide::t},
                              field{"u", &Wide::u}, field{"v", &Wide::v}, field{"w", &Wide::w}, field{"x", &Wide::x}};
    if constexpr (complete)
      return std::tuple_cat(most, std::tuple{field{"y", &Wide::y}});
    else
      return most;
  }
};
static_assert(ebb::Module<Wide<true>> && !ebb::Module<Wide<false>>);

Model make(std::size_t blocks) {
  Model model{ebb::nn::Linear::make(8, 8), ebb::nn::Embedding::make(100, 8), {}, ebb::nn::Linear::make(8, 3), 0};
  for (std::size_t i = 0; i < blocks; ++i) {
    Block block{ebb::nn::Linear::make(8, 16), {}, ebb::nn::Linear::make(16, 8)};
    if (i == 0) block.norm.emplace(ebb::nn::RMSNorm::make(16, 1e-6f));
    model.blocks.push_back(block);
  }
  return model;
}

std::vector<std::string> names(const std::vector<ebb::Unit>& units) {
  std::vector<std::string> result;
  for (const auto& unit : units) result.push_back(unit.name);
  return result;
}

}  // namespace

TEST_CASE("members give the checkpoint names, in order") {
  Model model = make(2);
  std::vector<std::string> found;
  ebb::for_each_parameter(model, [&](const std::string& name, auto&, auto&) { found.push_back(name); });
  const std::vector<std::string> expected{"in.weight",
                                          "in.bias",
                                          "table.weight",
                                          "blocks.0.first.weight",
                                          "blocks.0.first.bias",
                                          "blocks.0.norm.weight",
                                          "blocks.0.mlp.2.weight",
                                          "blocks.0.mlp.2.bias",
                                          "blocks.1.first.weight",
                                          "blocks.1.first.bias",
                                          "blocks.1.mlp.2.weight",
                                          "blocks.1.mlp.2.bias",
                                          "out.weight",
                                          "out.bias"};
  CHECK(found == expected);
}

TEST_CASE("the arena holds every parameter once, tables first, modules contiguous") {
  Model model = make(3);
  const ebb::Outline outline = ebb::outline_of(model, "model");
  std::size_t total = 0, home = 0;
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  ebb::for_each_reference(outline, [&](const ebb::ParameterReference& parameter) {
    CHECK(parameter.offset % ebb::segment_alignment == 0);
    ranges.emplace_back(parameter.offset, parameter.offset + parameter.bytes);
    total += parameter.bytes;
    if (parameter.stays_home) {
      home += parameter.bytes;
      CHECK(parameter.offset < outline.begin);
    } else {
      CHECK(parameter.offset >= outline.begin);
    }
  });
  CHECK(home == outline.begin);
  CHECK(total == outline.end);
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) CHECK(ranges[i].first == ranges[i - 1].second);
}

TEST_CASE("units cover everything that moves, once, at every level") {
  Model model = make(5);
  const ebb::Outline outline = ebb::outline_of(model, "model");
  CHECK(names(units_of(outline, ebb::Level::model)) == std::vector<std::string>{"model"});
  CHECK(names(units_of(outline, ebb::Level::block, 2)) ==
        std::vector<std::string>{"in", "blocks.0", "blocks.2", "blocks.4", "out"});
  CHECK(units_of(outline, ebb::Level::block, 2)[1].modules.size() == 2);
  CHECK(units_of(outline, ebb::Level::leaf).size() == 2 + 5 * 2 + 1);
  for (const auto level : {ebb::Level::model, ebb::Level::block, ebb::Level::leaf})
    for (std::size_t run = 1; run < 8; ++run) {
      const auto units = units_of(outline, level, run);
      std::size_t at = outline.begin;
      std::set<ebb::ModuleId> seen;
      for (const auto& unit : units) {
        CHECK(unit.begin == at);
        at = unit.end;
        for (const auto& id : unit.modules) CHECK(seen.insert(id).second);
      }
      CHECK(at == outline.end);
    }
}

TEST_CASE("block level needs blocks") {
  Model model = make(0);
  const ebb::Outline outline = ebb::outline_of(model, "vae");
  CHECK_THROWS_WITH_AS((void)units_of(outline, ebb::Level::block), doctest::Contains("vae"), ebb::ConfigError);
  Model other = make(1);
  CHECK_THROWS_AS((void)units_of(ebb::outline_of(other, "m"), ebb::Level::block, 0), ebb::ConfigError);
}

TEST_CASE("a struct and its first member are told apart") {
  Model model = make(1);
  CHECK(static_cast<const void*>(&model.blocks[0]) == static_cast<const void*>(&model.blocks[0].first));
  CHECK(ebb::id_of(model.blocks[0]) != ebb::id_of(model.blocks[0].first));
}

namespace {

struct Table {
  ebb::Vector weight;
  static constexpr bool stays_home = true;
  static consteval auto members() { return std::tuple{ebb::field{"weight", &Table::weight}}; }
};
struct Scale {
  ebb::Vector weight;
  static consteval auto members() { return std::tuple{ebb::field{"weight", &Scale::weight}}; }
};
struct Conditioner {
  static constexpr bool hoisted = true;
  Scale in, out;
  static consteval auto members() {
    return std::tuple{ebb::field{"in", &Conditioner::in}, ebb::field{"out", &Conditioner::out}};
  }
};
struct Layer {
  static constexpr ebb::Level level = ebb::Level::block;
  Scale first;
  Conditioner conditioner;
  Scale last;
  static consteval auto members() {
    return std::tuple{ebb::field{"first", &Layer::first}, ebb::field{"conditioner", &Layer::conditioner},
                      ebb::field{"last", &Layer::last}};
  }
};
struct Hoisting {
  Table table;
  ebb::Repeat<Layer> layers;
  static consteval auto members() {
    return std::tuple{ebb::field{"table", &Hoisting::table}, ebb::field{"layers", &Hoisting::layers}};
  }
};

}  // namespace

TEST_CASE("hoisted modules lie between what stays at home and what moves, and are cut into units of their own") {
  Hoisting model;
  const auto vector = [] { return ebb::Vector(ebb::Shape{64}); };  // 256 bytes
  model.table.weight = vector();
  for (int layer = 0; layer < 2; ++layer) model.layers.push_back({{vector()}, {{vector()}, {vector()}}, {vector()}});
  const ebb::Outline outline = ebb::outline_of(model, "model");
  CHECK(outline.hoisted_begin == 256);
  CHECK(outline.begin == 256 + 4 * 256);
  CHECK(outline.end == 9 * 256);
  const auto blocks = ebb::units_of(outline, ebb::Level::block);
  REQUIRE(blocks.size() == 2);
  CHECK(blocks[0].begin == outline.begin);
  CHECK(blocks[0].bytes() == 512);
  CHECK(blocks[1].end == outline.end);
  CHECK(ebb::units_of(outline, ebb::Level::leaf).size() == 4);
  const auto hoisted = ebb::hoisted_units_of(outline);
  REQUIRE(hoisted.size() == 4);
  CHECK(hoisted.front().name == "layers.0.conditioner.in");
  CHECK(hoisted.front().begin == 256);
  CHECK(hoisted.back().end == outline.begin);
}

namespace {

template <bool hoists, bool homes>
struct Resident {  // a block that stays out of the loop, or whose only parameter stays at home
  static constexpr ebb::Level level = ebb::Level::block;
  static constexpr bool hoisted = hoists;
  static constexpr bool stays_home = homes;
  ebb::Vector weight;
  static consteval auto members() { return std::tuple{ebb::field{"weight", &Resident::weight}}; }
};
template <class Middle>
struct Sandwich {
  Layer first;
  Middle middle;
  Layer last;
  static consteval auto members() {
    return std::tuple{ebb::field{"first", &Sandwich::first}, ebb::field{"middle", &Sandwich::middle},
                      ebb::field{"last", &Sandwich::last}};
  }
};
template <class Middle>
Sandwich<Middle> sandwich() {
  const auto vector = [] { return ebb::Vector(ebb::Shape{64}); };
  const Layer layer{{vector()}, {{vector()}, {vector()}}, {vector()}};
  return {layer, {vector()}, layer};
}

}  // namespace

TEST_CASE("a block that is hoisted or stays at home is in no unit that moves") {
  const auto check = [](auto model) {
    const ebb::Outline outline = ebb::outline_of(model, "model");
    CHECK(outline.end - outline.begin == 4 * 256);
    const auto units = ebb::units_of(outline, ebb::Level::block);
    REQUIRE(names(units) == std::vector<std::string>{"first", "last"});
    CHECK(units[0].begin == outline.begin);
    CHECK(units[1].begin == units[0].end);
    CHECK(units[1].end == outline.end);
    CHECK_FALSE(outline.children[1].holds_blocks());
  };
  check(sandwich<Resident<true, false>>());
  check(sandwich<Resident<false, true>>());
  Resident<true, false> alone{ebb::Vector(ebb::Shape{64})};
  CHECK_THROWS_AS((void)ebb::units_of(ebb::outline_of(alone, "alone"), ebb::Level::block), ebb::ConfigError);
}

TEST_CASE("a mark that is false is none") {
  auto model = sandwich<Resident<false, false>>();
  const ebb::Outline outline = ebb::outline_of(model, "model");
  CHECK(outline.hoisted_begin == 0);
  CHECK(names(ebb::units_of(outline, ebb::Level::block)) == std::vector<std::string>{"first", "middle", "last"});
}
