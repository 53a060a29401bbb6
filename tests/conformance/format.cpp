// What every format must do, run for all of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "ebb/tensor/quantize.hpp"

using namespace ebb;

namespace {
template <class Format>
std::vector<typename Format::Options> all_options() {
  if constexpr (BlockFormat<Format>) {
    std::vector<BlockOptions> options;
    for (std::size_t size = 32; size <= 4096; size *= 2)
      for (const auto nested : {DoubleQuantization::off, DoubleQuantization::on}) options.push_back({size, nested});
    return options;
  } else {
    return {{}};
  }
}

template <class Format>
struct Sample {
  QuantizedTensor<Format> tensor;
  std::vector<float> values;
  std::vector<std::byte> segment;

  Sample(const Shape& shape, const typename Format::Options& options, std::mt19937& random)
      : tensor(shape, options), values(shape.elements()), segment(tensor.bytes()) {
    std::normal_distribution<float> normal(0.0f, 0.05f);
    for (float& value : values) value = bfloat16(normal(random));  // exact in every dense format but F16's subnormals
    quantize(std::span<const float>(values), tensor, segment, "sample");
    tensor.bind(segment.data());
  }

  template <Element T>
  std::vector<T> restored() const {
    std::vector<T> out(values.size());
    dequantize(tensor, 0, std::span<T>(out));
    return out;
  }

  /// Largest distance between a value and what it decodes to.
  double bound(std::size_t element) const {
    const double x = std::abs(values[element]);
    if constexpr (DenseFormat<Format>) {
      return x * (Format::bits == 32 ? 0 : 0x1p-11) + 0x1p-25;
    } else {
      const double scale = std::abs(tensor.scale(element / tensor.group()));
      if constexpr (std::is_same_v<Format, INT8>) return scale / 254 + x * 0x1p-11 + 0x1p-25 + scale * 1e-6;
      if constexpr (std::is_same_v<Format, FP8>) return std::max(x / 16, scale * 0x1p-10) * 1.0001;
      // half the widest gap between neighbouring values, and what nesting does to the scale
      double gap = std::is_same_v<Format, NF4> ? (1.0 - 0.6961928009986877) / 2 : 1.0 / 6;
      double scale_error = 0;
      if constexpr (BlockFormat<Format>)
        if (tensor.nested()) scale_error = 0.00705 * double{tensor.nested_scales()[element / tensor.group() / 256]};
      return gap * (scale + scale_error) * 1.0001 + scale_error;
    }
  }
};
const std::vector<Shape> shapes = {Shape{},       Shape{1},      Shape{0},       Shape{63},      Shape{4, 64},
                                   Shape{3, 333}, Shape{5, 129}, Shape{2, 3, 7}, Shape{2, 4097}, Shape{17, 1024}};
}  // namespace

TEST_CASE_TEMPLATE("format conformance", Format, F32, F16, BF16, NF4, FP4, INT8, FP8) {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const std::string name(Format::name);
  CAPTURE(name);

  for (const Shape& shape : shapes) {
    const std::string text = shape.text();
    CAPTURE(text);
    for (const auto& options : all_options<Format>()) {
      const Sample<Format> sample(shape, options, random);
      const std::vector<float> full = sample.template restored<float>();

      // close to what went in
      std::size_t far = 0;
      for (std::size_t i = 0; i < full.size(); ++i)
        far += std::abs(double{full[i]} - sample.values[i]) > sample.bound(i);
      CHECK(far == 0);

      // narrower outputs are the float32 result rounded once
      const auto brain = sample.template restored<bfloat16>();
      const auto half = sample.template restored<float16>();
      for (std::size_t i = 0; i < full.size(); ++i) {
        REQUIRE(brain[i].bits == bfloat16(full[i]).bits);
        REQUIRE(half[i].bits == float16(full[i]).bits);
      }

      // any range equals the same range of the whole
      for (int repeat = 0; repeat < 20 && !full.empty(); ++repeat) {
        const std::size_t first = std::uniform_int_distribution<std::size_t>(0, full.size() - 1)(random);
        const std::size_t count = std::uniform_int_distribution<std::size_t>(0, full.size() - first)(random);
        std::vector<float> out(count);
        dequantize(sample.tensor, first, std::span<float>(out));
        REQUIRE((count == 0 || std::memcmp(out.data(), full.data() + first, count * sizeof(float)) == 0));
      }

      // deterministic, whatever was in the segment before
      std::vector<std::byte> again(sample.tensor.bytes(), std::byte{0x5a});
      quantize(std::span<const float>(sample.values), sample.tensor, again, "again");
      CHECK(again == sample.segment);

      // bfloat16 input is the same as its float32 values
      std::vector<bfloat16> narrow(sample.values.size());
      std::transform(sample.values.begin(), sample.values.end(), narrow.begin(), [](float x) { return bfloat16(x); });
      quantize(std::span<const bfloat16>(narrow), sample.tensor, again, "narrow");
      CHECK(again == sample.segment);
    }
  }
}

TEST_CASE_TEMPLATE("format conformance: codes are fixed points", Format, NF4, FP4, INT8, FP8) {
  std::set<int> seen;
  for (int i = 0; i < (1 << Format::bits); ++i) {
    const auto code = static_cast<typename Format::Code>(i);
    if constexpr (std::is_same_v<Format, FP8>)
      if ((i & 0x7f) == 0x7f) continue;  // NaN
    if constexpr (std::is_same_v<Format, INT8>)
      if (static_cast<std::int8_t>(code) == -128) continue;  // never produced
    if constexpr (std::is_same_v<Format, FP4>)
      if (i == 8) continue;                           // -0 encodes as +0
    for (const float absmax : {1.0f, 0.25f, 8.0f}) {  // powers of two: scaling is exact
      const float value = Format::decode(code, Format::scale_of(absmax));
      CAPTURE(i);
      CHECK(Format::encode(value, Format::inverse_of(absmax)) == code);
    }
    seen.insert(i);
  }
  CHECK(seen.size() >= (std::size_t{1} << Format::bits) - 2);
}

TEST_CASE_TEMPLATE("format conformance: encode is monotonic", Format, NF4, FP4, INT8, FP8) {
  float previous = -2.0f;
  for (int i = -2000; i <= 2000; ++i) {
    const float value = static_cast<float>(i) / 2000.0f;
    const float decoded = Format::decode(Format::encode(value, Format::inverse_of(1.0f)), Format::scale_of(1.0f));
    REQUIRE(decoded >= previous);
    previous = decoded;
  }
}
