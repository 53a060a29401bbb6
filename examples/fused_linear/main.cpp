// A linear in NF4 with bias, GELU and a product fused behind it, on the CPU. Fusion is composition: `chain` makes one
// stage of several, and the compiler one loop of that.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include "ebb/host.hpp"

int main() {
  constexpr std::size_t tokens = 64, inputs = 512, outputs = 256;
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  const auto values = [&](std::size_t count) {
    std::vector<float> result(count);
    for (float& value : result) value = normal(random);
    return result;
  };
  const auto weight_values = values(outputs * inputs), bias = values(outputs), factor = values(tokens * outputs);
  const auto x = values(tokens * inputs);

  ebb::AnyTensor weight;
  weight.emplace<ebb::NF4>({outputs, inputs}, {.block_size = 64});
  const ebb::AlignedBuffer segment(weight.bytes());
  ebb::quantize(std::span<const float>(weight_values), weight, segment.bytes(), "weight");
  weight.bind(segment.data());

  ebb::Workspace workspace;
  const ebb::host::Context<float> ctx(workspace, 2);
  std::vector<float> y(tokens * outputs);
  const ebb::Matrix<const float> gate(factor.data(), tokens, outputs);
  linear(ctx, {x.data(), tokens, inputs}, weight,
         ebb::chain(ebb::Bias{bias.data()}, ebb::GeluTanh{}, ebb::Multiply{gate}),
         ebb::Matrix<float>(y.data(), tokens, outputs));
  float largest = 0.0f;
  for (const float value : y) largest = std::max(largest, std::abs(value));
  std::printf("largest magnitude %g; %zu bytes of weight instead of %zu\n", largest, weight.bytes(),
              4 * weight_values.size());
}
