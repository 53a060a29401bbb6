#include "ebb/tensor/dequantize.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "ebb/tensor/quantize.hpp"

using namespace ebb;

TEST_CASE("dequantize: product in float32, one rounding") {
  QuantizedTensor<NF4> tensor(Shape{2});
  const std::vector<float> values = {0.7229568362236023f * 1.7f, 1.7f};
  std::vector<std::byte> segment(tensor.bytes());
  quantize(std::span<const float>(values), tensor, segment, "w");
  tensor.bind(segment.data());
  std::vector<float> exact(2);
  std::vector<bfloat16> brain(2);
  std::vector<float16> half(2);
  dequantize(tensor, 0, std::span(exact));
  dequantize(tensor, 0, std::span(brain));
  dequantize(tensor, 0, std::span(half));
  CHECK(exact[0] == NF4::values[14] * 1.7f);
  CHECK(brain[0].bits == bfloat16(NF4::values[14] * 1.7f).bits);
  CHECK(half[0].bits == float16(NF4::values[14] * 1.7f).bits);
}

TEST_CASE("dequantize: a range outside the tensor is refused") {
  QuantizedTensor<F32> tensor(Shape{2, 3});
  std::vector<std::byte> segment(tensor.bytes());
  tensor.bind(segment.data());
  std::vector<float> out(6);
  CHECK_NOTHROW(dequantize(tensor, 0, std::span(out)));
  CHECK_NOTHROW(dequantize(tensor, 6, std::span(out).first(0)));
  CHECK_THROWS_AS(dequantize(tensor, 1, std::span(out)), ShapeError);
  CHECK_THROWS_AS(dequantize(tensor, 7, std::span(out).first(0)), ShapeError);
  CHECK_THROWS_AS(dequantize(tensor, static_cast<std::size_t>(-1), std::span(out)), ShapeError);
}

TEST_CASE("dequantize: what bitsandbytes writes on a CPU for a zero block reads as zero") {
  QuantizedTensor<NF4> tensor(Shape{3});
  std::vector<std::byte> segment(tensor.bytes());
  auto* bytes = segment.data();
  bytes[0] = bytes[1] = std::byte{0x77};
  *reinterpret_cast<float*>(bytes + tensor.layout().scales_offset) = 1e-38f;
  tensor.bind(bytes);
  std::vector<float> out(3, 1.0f);
  dequantize(tensor, 0, std::span(out));
  for (const float value : out) CHECK(value == 0.0f);
}
