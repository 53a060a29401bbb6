#include "ebb/offload/advice.hpp"

#include <doctest/doctest.h>

#include <string>
#include <tuple>
#include <vector>

#include "ebb/nn/linear.hpp"

namespace {

struct Block {
  static constexpr ebb::Level level = ebb::Level::block;
  ebb::nn::Linear first, second;
  static consteval auto members() {
    return std::tuple{ebb::field{"first", &Block::first}, ebb::field{"second", &Block::second}};
  }
};
struct Model {
  ebb::Repeat<Block> blocks;
  static consteval auto members() { return std::tuple{ebb::field{"blocks", &Model::blocks}}; }
};

}  // namespace

TEST_CASE("the costs of policies, and which of them fit") {
  Model model;
  for (int i = 0; i < 4; ++i) model.blocks.push_back({ebb::nn::Linear::make(64, 64), ebb::nn::Linear::make(64, 64)});
  const std::vector<ebb::Outline> outlines{ebb::outline_of(model, "transformer")};
  const auto costs = ebb::policy_costs(outlines);
  REQUIRE(costs.size() == 4);
  const std::size_t linear = outlines[0].end / 8;
  CHECK(costs[0].arena_bytes == 8 * linear);
  CHECK(costs[1].arena_bytes == 8 * linear);
  CHECK(costs[2].arena_bytes == 4 * linear);
  CHECK(costs[3].arena_bytes == 3 * linear);
  CHECK(ebb::policies_that_fit(costs, 4 * linear) == ebb::concat("in ", 4 * linear, " bytes fit: --offload block (",
                                                                 4 * linear, " bytes), --offload leaf (", 3 * linear,
                                                                 " bytes)"));
  CHECK(ebb::policies_that_fit(costs, 1) ==
        ebb::concat("no offload policy fits in 1 bytes; --offload leaf (", 3 * linear, " bytes) needs least"));
  CHECK(ebb::policies_that_fit(costs, 4 * linear + 100, linear + 100) ==
        ebb::concat("in ", 3 * linear, " bytes (", 4 * linear + 100, " less ", linear + 100,
                    " for activations and scratch) fit: --offload leaf (", 3 * linear, " bytes)"));
  CHECK(ebb::policies_that_fit(costs, 1, 2) ==
        ebb::concat("no offload policy fits in 0 bytes (1 less 2 for activations and scratch); --offload leaf (",
                    3 * linear, " bytes) needs least"));

  const std::vector<std::string> excluded{"transformer"};
  for (const ebb::PolicyCost& cost : ebb::policy_costs(outlines, ebb::HomeMemory::separate, excluded))
    CHECK(cost.arena_bytes == 8 * linear);

  const std::vector<std::string> misspelt{"transfomer"};
  CHECK_THROWS_WITH_AS((void)ebb::policy_costs(outlines, ebb::HomeMemory::separate, misspelt),
                       doctest::Contains("cannot exclude 'transfomer'"), ebb::ConfigError);

  ebb::nn::Linear alone = ebb::nn::Linear::make(8, 8);
  const std::vector<ebb::Outline> without_blocks{ebb::outline_of(alone, "projector")};
  CHECK(ebb::policy_costs(without_blocks).size() == 3);
  CHECK(ebb::policy_costs(without_blocks, ebb::HomeMemory::computable)[0].arena_bytes == 0);
}
