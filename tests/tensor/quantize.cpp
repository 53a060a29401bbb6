#include "ebb/tensor/quantize.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace ebb;

namespace {
std::vector<float> normal(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

double relative_error(const std::vector<float>& values, const std::vector<float>& restored) {
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    error += std::pow(double{values[i]} - restored[i], 2);
    norm += std::pow(double{values[i]}, 2);
  }
  return std::sqrt(error / norm);
}

template <QuantFormat Format>
std::vector<float> round_trip(const std::vector<float>& values, const Shape& shape,
                              typename Format::Options options = {}) {
  QuantizedTensor<Format> tensor(shape, options);
  std::vector<std::byte> segment(tensor.bytes());
  quantize(std::span<const float>(values), tensor, segment, "weight");
  tensor.bind(segment.data());
  std::vector<float> restored(values.size());
  dequantize(tensor, 0, std::span<float>(restored));
  return restored;
}
}  // namespace

TEST_CASE("quantize: bytes of a hand-made NF4 block") {
  // values of the table times 2, in code order: bytes 0x01 0x23 ... 0xef, twice
  std::vector<float> values;
  for (int repeat = 0; repeat < 2; ++repeat)
    for (const float value : NF4::values) values.push_back(2.0f * value);
  const QuantizedTensor<NF4> target(Shape{2, 16}, {32, DoubleQuantization::off});
  std::vector<std::byte> segment(target.bytes(), std::byte{0xaa});
  quantize(std::span<const float>(values), target, segment, "weight");
  for (std::size_t i = 0; i < 16; ++i) {
    const auto low = static_cast<unsigned>(2 * i % 16);
    CHECK(std::to_integer<unsigned>(segment[i]) == (low << 4 | (low + 1)));
  }
  float scale = 0;
  std::memcpy(&scale, segment.data() + target.layout().scales_offset, sizeof(scale));
  CHECK(scale == 2.0f);
  for (std::size_t i = 16; i < target.layout().scales_offset; ++i) CHECK(segment[i] == std::byte{0});
}

TEST_CASE("quantize: the low nibble after an odd end is the code of zero") {
  for (const auto& [values, expected] :
       {std::pair{std::vector<float>{4.0f}, 0xf7u}, std::pair{std::vector<float>{0.0f}, 0x00u}}) {
    const QuantizedTensor<NF4> target(Shape{1});
    std::vector<std::byte> segment(target.bytes());
    quantize(std::span<const float>(values), target, segment, "weight");
    CHECK(std::to_integer<unsigned>(segment[0]) == expected);
  }
}

TEST_CASE("quantize: zero blocks become zero codes and zero scales") {
  const std::vector<float> zeros(100, 0.0f);
  QuantizedTensor<FP4> tensor(Shape{100}, {32, DoubleQuantization::on});
  std::vector<std::byte> segment(tensor.bytes());
  quantize(std::span<const float>(zeros), tensor, segment, "weight");
  tensor.bind(segment.data());
  for (const std::uint8_t byte : tensor.codes()) CHECK(byte == 0);
  CHECK(*tensor.nested_offset() == 0.0f);
  for (const float value : round_trip<NF4>(zeros, Shape{100})) CHECK(value == 0.0f);
  for (const float value : round_trip<INT8>(zeros, Shape{4, 25})) CHECK(value == 0.0f);
  for (const float value : round_trip<FP8>(zeros, Shape{4, 25})) CHECK(value == 0.0f);
}

TEST_CASE("quantize: NaN and infinity are refused by tensor and index") {
  std::vector<float> values = normal(200, 1);
  values[130] = std::nanf("");
  const QuantizedTensor<NF4> target(Shape{2, 100});
  std::vector<std::byte> segment(target.bytes());
  CHECK_THROWS_WITH_AS(quantize(std::span<const float>(values), target, segment, "blocks.0.weight"),
                       "tensor 'blocks.0.weight': element 130 is nan, which nf4 cannot hold: expected finite numbers; "
                       "check the checkpoint or exclude the tensor from quantization",
                       ValueError);
  values[130] = -std::numeric_limits<float>::infinity();
  std::vector<std::byte> larger(2048);
  CHECK_THROWS_AS(quantize(std::span<const float>(values), QuantizedTensor<FP8>(Shape{2, 100}), larger, "w"),
                  ValueError);
  values[130] = 1.0f;
  values[7] = 70000.0f;  // finite, but INT8 goes through float16
  const QuantizedTensor<INT8> eight(Shape{2, 100});
  std::vector<std::byte> eight_segment(eight.bytes());
  CHECK_THROWS_WITH_AS(quantize(std::span<const float>(values), eight, eight_segment, "w"),
                       "tensor 'w': element 7 is 70000, which int8 cannot hold: expected finite numbers that fit "
                       "float16; check the checkpoint or exclude the tensor from quantization",
                       ValueError);
}

TEST_CASE("quantize: sizes that do not match are refused") {
  const std::vector<float> values(64, 1.0f);
  const QuantizedTensor<NF4> target(Shape{65});
  std::vector<std::byte> segment(target.bytes());
  CHECK_THROWS_AS(quantize(std::span<const float>(values), target, segment, "w"), ShapeError);
  const QuantizedTensor<NF4> right(Shape{64});
  CHECK_THROWS_AS(quantize(std::span<const float>(values), right, std::span(segment).first(255), "w"), ShapeError);
  std::vector<std::byte> longer(target.bytes() + 1);
  CHECK_THROWS_AS(quantize(std::span<const float>(values), right, std::span(longer).subspan(1), "w"), ShapeError);
}

TEST_CASE("Quantizer: parts in any order and in parallel equal the whole") {
  const std::vector<float> values = normal(3 * 1001, 2);
  const QuantizedTensor<NF4> target(Shape{3, 1001}, {64, DoubleQuantization::on});
  std::vector<std::byte> whole(target.bytes(), std::byte{1});
  std::vector<std::byte> parts(target.bytes(), std::byte{2});
  quantize(std::span<const float>(values), target, whole, "w");
  Quantizer<NF4> quantizer(target, parts, "w");
  const std::span<const float> all(values);
  std::thread last([&] { quantizer.encode(20, all.subspan(20 * 64)); });
  quantizer.encode(7, all.subspan(7 * 64, 13 * 64));
  quantizer.encode(0, all.first(7 * 64));
  last.join();
  quantizer.finish();
  CHECK(whole == parts);
  CHECK_THROWS_AS(quantizer.encode(0, all.first(65)), ShapeError);
  CHECK_THROWS_AS(quantizer.encode(40, all.first(640)), ShapeError);
  CHECK_THROWS_AS(quantizer.encode(1000, all.first(64)), ShapeError);
}

TEST_CASE("quantize: rows longer than the conversion buffer") {
  const std::vector<float> values = normal(2 * 10001, 3);
  const auto restored = round_trip<INT8>(values, Shape{2, 10001});
  CHECK(relative_error(values, restored) < 0.012);
}

TEST_CASE("quantize: the error on normal numbers is that of the formats") {
  const std::vector<float> values = normal(1 << 18, 4);
  const Shape shape{512, 512};
  const double nf4 = relative_error(values, round_trip<NF4>(values, shape));
  const double nested = relative_error(values, round_trip<NF4>(values, shape, {64, DoubleQuantization::on}));
  CHECK(nf4 == doctest::Approx(0.0916).epsilon(0.02));
  CHECK(nested >= nf4 * 0.999);
  CHECK(nested <= nf4 * 1.01);
  CHECK(relative_error(values, round_trip<FP4>(values, shape)) > nf4);
  CHECK(relative_error(values, round_trip<INT8>(values, shape)) < 0.01);
  CHECK(relative_error(values, round_trip<FP8>(values, shape)) < 0.03);
}

TEST_CASE("quantize: a format chosen at run time") {
  AnyTensor tensor;
  tensor.emplace<FP8>(Shape{2, 8});
  const std::vector<float> values = normal(16, 5);
  std::vector<std::byte> segment(tensor.bytes());
  quantize(std::span<const float>(values), tensor, segment, "w");
  tensor.bind(segment.data());
  std::vector<float> restored(16);
  dequantize(tensor, 0, std::span<float>(restored));
  CHECK(restored == round_trip<FP8>(values, Shape{2, 8}));
}
