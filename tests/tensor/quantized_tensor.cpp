#include "ebb/tensor/quantized_tensor.hpp"

#include <doctest/doctest.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "ebb/format/fp8.hpp"
#include "ebb/format/int8.hpp"
#include "ebb/format/nf4.hpp"
#include "ebb/tensor/quantize.hpp"

using namespace ebb;

static_assert(std::is_default_constructible_v<QuantizedTensor<NF4>> && std::copyable<QuantizedTensor<NF4>>);
static_assert(!std::convertible_to<Shape, QuantizedTensor<NF4>>);

TEST_CASE("QuantizedTensor: default-constructed is empty and unbound") {
  const QuantizedTensor<NF4> tensor;
  CHECK(tensor.bytes() == 0);
  CHECK(tensor.elements() == 0);
  CHECK(tensor.groups() == 0);
  CHECK_FALSE(tensor.bound());
}

TEST_CASE("QuantizedTensor: an unbound tensor names itself") {
  const QuantizedTensor<NF4> tensor(Shape{4, 64});
  CHECK_THROWS_WITH_AS(tensor.codes(),
                       "a tensor of shape [4, 64] in nf4 is used while it is not in memory: load it, or enter its "
                       "module, first",
                       MemoryError);
}

TEST_CASE("QuantizedTensor: parts lie where the layout says") {
  QuantizedTensor<NF4> tensor(Shape{3, 1001}, {32, DoubleQuantization::on});
  std::vector<std::byte> segment(tensor.bytes());
  tensor.bind(segment.data());
  const auto at = [&](std::size_t offset) { return static_cast<const void*>(segment.data() + offset); };
  const SegmentLayout& layout = tensor.layout();
  CHECK(tensor.groups() == 94);
  CHECK(tensor.codes().data() == at(0));
  CHECK(tensor.codes().size() == 1502);
  CHECK(tensor.scale_codes().data() == at(layout.scales_offset));
  CHECK(tensor.scale_codes().size() == 94);
  CHECK(tensor.nested_map().size() == 256);
  CHECK(tensor.nested_map().data() == at(layout.nested_offset));
  CHECK(tensor.nested_scales().data() == at(layout.nested_offset + 1024));
  CHECK(tensor.nested_scales().size() == 1);
  CHECK(tensor.nested_offset() == at(layout.nested_offset + layout.nested_bytes - 4));
  CHECK_THROWS_AS(tensor.scales(), ConfigError);

  QuantizedTensor<NF4> plain(Shape{3, 1001}, {32, DoubleQuantization::off});
  plain.bind(segment.data());
  CHECK(plain.scales().size() == 94);
  CHECK_THROWS_AS(plain.scale_codes(), ConfigError);
  CHECK_THROWS_AS(plain.nested_offset(), ConfigError);
  CHECK_THROWS_AS(plain.scale(94), ShapeError);
}

TEST_CASE("QuantizedTensor: rebinding moves every part") {
  QuantizedTensor<INT8> tensor(Shape{2, 3});
  std::vector<std::byte> first(tensor.bytes());
  const std::array<float, 6> values = {1, -2, 3, 0.5f, 0.25f, -1};
  quantize(std::span<const float>(values), tensor, first, "weight");
  const std::vector<std::byte> second = first;
  tensor.bind(first.data());
  QuantizedTensor<INT8> copy = tensor;
  copy.bind(second.data());
  CHECK(copy.scale(1) == tensor.scale(1));
  CHECK(copy.codes().data() != tensor.codes().data());
  CHECK(copy.codes()[2] == 127);
}

TEST_CASE("QuantizedTensor: impossible options do not make a tensor") {
  CHECK_THROWS_AS((QuantizedTensor<NF4>(Shape{64}, {63, DoubleQuantization::off})), ConfigError);
  CHECK_THROWS_AS((QuantizedTensor<FP8>(Shape{std::size_t{1} << 33, std::size_t{1} << 33})), ShapeError);
}
