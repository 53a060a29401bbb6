#include "ebb/tensor/any_of.hpp"

#include <doctest/doctest.h>

#include <concepts>
#include <string_view>
#include <type_traits>
#include <vector>

using namespace ebb;

static_assert(std::is_default_constructible_v<AnyTensor> && std::copyable<AnyTensor>);
static_assert(!std::constructible_from<AnyTensor, int> && !std::convertible_to<QuantizedTensor<NF4>, AnyTensor>);
static_assert(AnyTensor::can_hold<NF4> && !DenseTensor::can_hold<NF4>);

TEST_CASE("AnyOf: empty until a format is chosen") {
  const AnyTensor tensor;
  CHECK(tensor.bytes() == 0);
  CHECK_FALSE(tensor.bound());
  CHECK(tensor.format_name() == "f32");
}

TEST_CASE("AnyOf: forwards to the tensor it holds") {
  AnyTensor tensor;
  tensor.emplace<NF4>(Shape{4, 64}, {32, DoubleQuantization::on});
  const QuantizedTensor<NF4> same(Shape{4, 64}, {32, DoubleQuantization::on});
  CHECK(tensor.shape() == same.shape());
  CHECK(tensor.layout() == same.layout());
  CHECK(tensor.bytes() == same.bytes());
  CHECK(tensor.elements() == 256);
  CHECK(tensor.format_name() == "nf4");
  CHECK(tensor.holds<NF4>());
  CHECK_FALSE(tensor.holds<FP4>());
  CHECK_THROWS_AS(tensor.segment(), MemoryError);
  std::vector<std::byte> segment(tensor.bytes());
  tensor.bind(segment.data());
  CHECK(tensor.bound());
  CHECK(tensor.segment() == segment.data());
  CHECK(tensor.get<NF4>().segment() == segment.data());
  CHECK_THROWS_WITH_AS(tensor.get<BF16>(), "a tensor of shape [4, 64] has format nf4 where bf16 was expected",
                       ConfigError);
  tensor.emplace<BF16>(Shape{2});
  CHECK_FALSE(tensor.bound());
  CHECK(tensor.format_name() == "bf16");
}

TEST_CASE("AnyOf: visit resolves the format at compile time") {
  AnyTensor tensor;
  tensor.emplace<INT8>(Shape{2, 8});
  const auto bits = tensor.visit([]<class Format>(const QuantizedTensor<Format>&) { return Format::bits; });
  CHECK(bits == 8);
}
