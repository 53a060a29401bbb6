// Quantizes a weight to every format and prints what it costs and what it loses. Needs ebb::ebb only.
#include <cmath>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include "ebb/memory/storage.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/quantize.hpp"

namespace {

template <class Format>
void show(const char* label, std::span<const float> weight, ebb::Shape shape, typename Format::Options options = {}) {
  ebb::QuantizedTensor<Format> tensor(shape, options);
  const ebb::AlignedBuffer segment(tensor.bytes());  // codes, scales and nested state: one contiguous piece
  ebb::quantize(weight, tensor, segment.bytes(), "weight");
  tensor.bind(segment.data());

  std::vector<float> back(weight.size());
  ebb::dequantize(tensor, 0, std::span(back));
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    error += (back[i] - weight[i]) * (back[i] - weight[i]);
    norm += weight[i] * weight[i];
  }
  const double bits = 8.0 * static_cast<double>(tensor.layout().stored_bytes()) / static_cast<double>(weight.size());
  std::printf("%-24s %9zu bytes  %6.3f bits a weight  relative error %.2e\n", label, tensor.layout().stored_bytes(),
              bits, std::sqrt(error / norm));
}

}  // namespace

int main() {
  const ebb::Shape shape{3072, 3072};
  std::vector<float> weight(shape.elements());
  std::mt19937 random(0);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (float& value : weight) value = normal(random);

  using ebb::DoubleQuantization;
  show<ebb::BF16>("bf16", weight, shape);
  show<ebb::INT8>("int8", weight, shape);
  show<ebb::FP8>("fp8 (e4m3)", weight, shape);
  show<ebb::NF4>("nf4, block 64", weight, shape);
  show<ebb::NF4>("nf4, double quantized", weight, shape, {.nested = DoubleQuantization::on});
  show<ebb::FP4>("fp4, block 64", weight, shape);
}
