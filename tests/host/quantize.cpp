#include "ebb/host/quantize.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/memory/workspace.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "support/random.hpp"

using namespace ebb;

TEST_CASE("quantize and dequantize on a context are those of a tensor, whatever its format") {
  testing::Random random(21);
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  using Kind = FormatChoice::Kind;
  for (const Kind kind : {Kind::nf4, Kind::fp4, Kind::fp8, Kind::int8}) {
    FormatChoice choice;
    choice.kind = kind;
    CAPTURE(choice.name());
    AnyTensor tensor;
    emplace(tensor, {5, 96}, choice);
    const auto values = random.normal(tensor.shape().elements());
    const AlignedBuffer expected(tensor.bytes()), found(tensor.bytes());
    std::memset(found.data(), 0xff, found.size());
    ebb::quantize(std::span<const float>(values), tensor, expected.bytes(), "weight");
    quantize(ctx, std::span<const float>(values), tensor, found.bytes(), "weight");
    CHECK(std::memcmp(found.data(), expected.data(), expected.size()) == 0);
    CHECK_THROWS_AS(quantize(ctx, std::span(values).first(3), tensor, found.bytes(), "weight"), ShapeError);
    CHECK_THROWS_AS(quantize(ctx, std::span(values), tensor, found.bytes().first(8), "weight"), ShapeError);

    tensor.bind(found.data());
    const AlignedBuffer memory(values.size() * sizeof(float));
    const std::span<float> out(reinterpret_cast<float*>(memory.data()), values.size());
    dequantize(ctx, tensor, out);
    std::vector<float> reference(values.size());
    ebb::dequantize(tensor, 0, std::span(reference));
    CHECK(std::memcmp(out.data(), reference.data(), memory.size()) == 0);
    CHECK_THROWS_AS(dequantize(ctx, tensor, out.first(7)), ShapeError);
  }
}
