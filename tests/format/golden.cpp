// Against bitsandbytes and PyTorch, byte for byte. Where its CPU backend, or the approximate reciprocal of
// its CUDA kernels, departs from the arithmetic that the formats implement, the case is named in an `excuse`.
#include "format/golden.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ebb/tensor/quantize.hpp"

using namespace ebb;

namespace {
constexpr float smallest_normal = 0x1p-126f;
constexpr float cpu_clamp = 1e-38f;  // the CPU backend divides by no absmax below this, and stores it for a short block

std::uint8_t nibble(std::span<const std::uint8_t> bytes, std::size_t element) {
  return element % 2 == 0 ? even_nibble(bytes[element / 2]) : odd_nibble(bytes[element / 2]);
}

/// Numbers between a and b, in float32 steps, both of one sign.
int ulps(float a, float b) {
  return std::abs(
      static_cast<int>(std::bit_cast<std::uint32_t>(std::abs(a)) - std::bit_cast<std::uint32_t>(std::abs(b))));
}

constexpr std::array<std::uint8_t, 8> magnitudes_ascending = {0, 1, 6, 7, 4, 5, 2, 3};

/// Both borders that a backend may compare with between two neighbouring codes: the literal of the CUDA
/// kernel and the float32 midpoint of the CPU backend. False when the codes are no neighbours.
template <class Format>
bool borders(std::uint8_t a, std::uint8_t b, float& literal, float& midpoint) {
  midpoint = (Format::values[a] + Format::values[b]) * 0.5f;
  if constexpr (std::is_same_v<Format, NF4>) {
    if (std::abs(int{a} - int{b}) != 1) return false;
    literal = NF4::thresholds[std::min(a, b)];
  } else {
    if ((a & 8u) != (b & 8u)) return false;
    const auto& order = magnitudes_ascending;
    const auto rank = [&](unsigned code) { return std::find(order.begin(), order.end(), code & 7u) - order.begin(); };
    if (std::abs(rank(a) - rank(b)) != 1) return false;
    literal = FP4::pivots[static_cast<std::size_t>(std::min(rank(a), rank(b)))];
    if ((a & 8u) != 0) literal = -literal;
  }
  return true;
}

/// Why `golden` may differ from `ours`, or "" when it may not. `y` is the value over its block's absmax.
template <class Format>
std::string_view excuse(bool cpu, float y, float absmax, std::uint8_t ours, std::uint8_t golden) {
  if (ours == golden) return "equal";
  const bool both_zero = Format::values[ours] == 0.0f && Format::values[golden] == 0.0f;
  float literal = 0;
  float midpoint = 0;
  const bool neighbours = borders<Format>(ours, golden, literal, midpoint);
  if (!cpu) {
    if (absmax < smallest_normal) return "CUDA flushes subnormal numbers";
    if (absmax > 0x1p126f && Format::values[golden] == 0.0f) return "CUDA flushes the reciprocal of a huge absmax";
    if (neighbours && ulps(y, literal) <= 2) return "CUDA takes an approximate reciprocal";
    return "";
  }
  if (absmax == 0.0f && Format::values[golden] == 0.0f) return "zero block: the CPU backend encodes zeros";
  if (absmax < cpu_clamp) return "the CPU backend clamps absmax";
  if (both_zero) return "the CPU backend writes FP4's zero as either code";
  if (!neighbours) return "";
  // Each must be right by its own rule: the CPU backend counts midpoints below y, so that a tie goes to the
  // lower value; the CUDA kernel counts literals below y, or for FP4 below |y|.
  const bool ours_above = Format::values[ours] > Format::values[golden];
  const bool above_literal = std::is_same_v<Format, FP4> && y < 0.0f ? y >= literal : y > literal;
  if (ours_above == above_literal && !ours_above == (y > midpoint)) return "the CPU backend compares with midpoints";
  return "";
}

/// Decodes the golden codes and scales and compares with the golden output, in its own element type.
template <class Format>
void check_output(const golden::Tensors& file, const std::string& key, QuantizedTensor<Format> tensor,
                  std::span<const std::byte> segment) {
  tensor.bind(segment.data());
  const auto compare = [&]<class T>(T) {
    const auto expected = file.get<T>(key);
    std::vector<T> actual(tensor.elements());
    REQUIRE(expected.size() == actual.size());
    dequantize(tensor, 0, std::span<T>(actual));
    std::size_t different = 0;
    for (std::size_t i = 0; i < actual.size(); ++i)  // by value: FP4's two zeros are one
      different += static_cast<float>(actual[i]) != static_cast<float>(expected[i]);
    CHECK(different == 0);
  };
  const DType type = file.dtype(key);
  if (type == DType::f32) compare(float{});
  if (type == DType::bf16) compare(bfloat16{});
  if (type == DType::f16) compare(float16{});
}

template <class T>
void put(std::span<std::byte> segment, std::size_t offset, std::span<const T> values) {
  REQUIRE(offset + values.size_bytes() <= segment.size());
  if (!values.empty()) std::memcpy(segment.data() + offset, values.data(), values.size_bytes());
}

template <class Format>
void check_blockwise(bool cpu, const golden::Tensors& file, const std::string& name, std::size_t block_size) {
  const std::string key = name + "." + std::string(Format::name);
  if (!file.contains(key + ".packed")) return;
  CAPTURE(key);
  const auto values = file.floats(name + ".input");
  const auto packed = file.get<std::uint8_t>(key + ".packed");
  const auto absmax = file.get<float>(key + ".absmax");

  QuantizedTensor<Format> tensor(Shape{values.size()}, {block_size, DoubleQuantization::off});
  std::vector<std::byte> segment(tensor.bytes());
  quantize(std::span<const float>(values), tensor, segment, name);
  tensor.bind(segment.data());
  REQUIRE(packed.size() == tensor.codes().size());
  REQUIRE(absmax.size() == tensor.groups());

  for (std::size_t block = 0; block < absmax.size(); ++block) {
    const float scale = tensor.scales()[block];
    const bool short_block = (block + 1) * block_size > values.size();
    if (cpu && short_block && scale < cpu_clamp)
      CHECK(absmax[block] == cpu_clamp);
    else if (!cpu && scale < smallest_normal)
      CHECK((absmax[block] == scale || absmax[block] == 0.0f));
    else
      CHECK(absmax[block] == scale);
  }
  for (std::size_t i = 0; i < 2 * packed.size(); ++i) {  // with the nibble after an odd end: the code of zero
    const float scale = tensor.scales()[std::min(i, values.size() - 1) / block_size];
    const float y = i < values.size() ? values[i] * Format::inverse_of(scale) : 0.0f;
    const int ours = nibble(tensor.codes(), i);
    const int theirs = nibble(packed, i);
    CAPTURE(i);
    CAPTURE(y);
    CAPTURE(ours);
    CAPTURE(theirs);
    REQUIRE(excuse<Format>(cpu, y, scale, static_cast<std::uint8_t>(ours), static_cast<std::uint8_t>(theirs)) != "");
  }

  put<std::uint8_t>(segment, 0, packed);
  put<float>(segment, tensor.layout().scales_offset, absmax);
  check_output(file, key + ".output", tensor, segment);
}
}  // namespace

TEST_CASE("golden: there are vectors to compare with") { REQUIRE(!golden::devices().empty()); }

TEST_CASE("golden: NF4 and FP4 codes, scales and values are those of bitsandbytes") {
  for (const auto& device : golden::devices()) {
    const golden::Tensors file(device / "blockwise.safetensors");
    const auto cases = golden::cases(device, "blockwise");
    CHECK(cases.size() > 50);
    for (const auto& [name, numbers] : cases) {
      check_blockwise<NF4>(device.filename() == "cpu", file, name, numbers.at(0));
      check_blockwise<FP4>(device.filename() == "cpu", file, name, numbers.at(0));
    }
    const auto nf4 = file.get<std::uint32_t>("table.nf4");
    const auto fp4 = file.get<float>("table.fp4");
    for (std::size_t code = 0; code < 16; ++code) {
      CHECK(std::bit_cast<std::uint32_t>(NF4::values[code]) == nf4[code]);
      CHECK(FP4::values[code] == fp4[code]);  // by value: the sign of code 8 is bitsandbytes' own business
    }
  }
}

namespace {
/// Whether a backend may give `y` the code `golden` where `dynamic_code` says `ours`. The CPU backend looks
/// the code up in a table of 65536 cells over [-1, 1], by the middle of the cell that holds y.
bool near_dynamic_code(bool cpu, float y, std::uint8_t ours, std::uint8_t golden) {
  if (ours == golden) return true;
  const auto low = [](unsigned code) { return code == 0 ? -1.0f : (dynamic_map[code - 1] + dynamic_map[code]) * 0.5f; };
  const auto high = [&](unsigned code) { return code == 255 ? 1.0f : low(code + 1); };
  if (y < low(ours) || y > high(ours)) return false;  // ours is the nearest, always
  const float border = y < low(golden) ? low(golden) : high(golden);
  if (cpu) return (y >= low(golden) && y <= high(golden)) || std::abs(y - border) <= 1.001f / 65535.0f;
  return std::abs(int{ours} - int{golden}) == 1 && ulps(y, border) <= 2;  // an approximate reciprocal
}

template <class Format>
void check_nested(bool cpu, const golden::Tensors& file, const std::string& name, std::size_t block_size) {
  CAPTURE(name);
  const auto values = file.floats(name + ".input");
  const auto packed = file.get<std::uint8_t>(name + ".packed");
  const auto codes = file.get<std::uint8_t>(name + ".absmax_codes");
  const auto nested_absmax = file.get<float>(name + ".nested_absmax");
  const float offset = file.get<float>(name + ".offset").at(0);
  const auto absmax = file.get<float>(name + ".absmax");
  const auto map = file.get<float>("nested_map");

  // plain scales, whose quantization is then checked with the golden mean
  QuantizedTensor<Format> plain(Shape{values.size()}, {block_size, DoubleQuantization::off});
  std::vector<std::byte> plain_segment(plain.bytes());
  quantize(std::span<const float>(values), plain, plain_segment, name);
  plain.bind(plain_segment.data());
  REQUIRE(codes.size() == plain.groups());
  CHECK(ulps(mean_of_scales(plain.scales()), offset) <= 2);
  std::vector<std::uint8_t> our_codes(codes.size());
  std::vector<float> our_nested(nested_absmax.size());
  quantize_scales(plain.scales(), offset, our_codes, our_nested);
  CHECK(our_nested == nested_absmax);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float nested = our_nested[i / nested_block_size];
    const float y = (plain.scales()[i] - offset) * (1.0f / nested);
    CAPTURE(i);
    CAPTURE(y);
    if (nested == 0.0f)
      REQUIRE(codes[i] == our_codes[i]);
    else
      REQUIRE(near_dynamic_code(cpu, y, our_codes[i], codes[i]));
  }

  // the golden state, read back
  QuantizedTensor<Format> tensor(Shape{values.size()}, {block_size, DoubleQuantization::on});
  std::vector<std::byte> segment(tensor.bytes());
  quantize(std::span<const float>(values), tensor, segment, name);
  tensor.bind(segment.data());
  for (std::size_t i = 0; i < 2 * packed.size(); ++i) {
    const float scale = plain.scales()[std::min(i, values.size() - 1) / block_size];
    const float y = i < values.size() ? values[i] * Format::inverse_of(scale) : 0.0f;
    REQUIRE(excuse<Format>(cpu, y, scale, nibble(tensor.codes(), i), nibble(packed, i)) != "");
  }
  const SegmentLayout& layout = tensor.layout();
  put<std::uint8_t>(segment, layout.codes_offset, packed);
  put<std::uint8_t>(segment, layout.scales_offset, codes);
  put<float>(segment, layout.nested_offset + nested_map_at, map);
  put<float>(segment, layout.nested_offset + nested_scales_at, nested_absmax);
  put<float>(segment, layout.nested_offset + nested_mean_at(layout), std::span(&offset, 1));
  for (std::size_t block = 0; block < absmax.size(); ++block) REQUIRE(tensor.scale(block) == absmax[block]);
  if (file.contains(name + ".output")) check_output(file, name + ".output", tensor, segment);
}
}  // namespace

TEST_CASE("golden: double quantization is that of bitsandbytes") {
  for (const auto& device : golden::devices()) {
    const bool cpu = device.filename() == "cpu";
    const golden::Tensors file(device / "double_quantization.safetensors");
    const auto cases = golden::cases(device, "double_quantization");
    CHECK(cases.size() > 5);
    for (const auto& [name, numbers] : cases)
      if (name.ends_with(".nf4"))
        check_nested<NF4>(cpu, file, name, numbers.at(0));
      else
        check_nested<FP4>(cpu, file, name, numbers.at(0));
    const auto map = file.get<float>("nested_map");
    CHECK(std::equal(map.begin(), map.end(), dynamic_map.begin(), dynamic_map.end()));

    // the search itself
    for (const std::string name : {"search_midpoints", "search_uniform", "search_map"}) {
      CAPTURE(name);
      const auto values = file.get<float>(name + ".input");
      const auto codes = file.get<std::uint8_t>(name + ".codes");
      const auto absmax = file.get<float>(name + ".absmax");
      std::vector<std::uint8_t> ours(values.size());
      std::vector<float> our_absmax(absmax.size());
      quantize_scales(values, 0.0f, ours, our_absmax);
      CHECK(our_absmax == absmax);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float y = values[i] * (1.0f / our_absmax[i / nested_block_size]);
        CAPTURE(i);
        CAPTURE(y);
        REQUIRE(near_dynamic_code(cpu, y, ours[i], codes[i]));
      }
    }
  }
}

TEST_CASE("golden: LLM.int8 weights are those of bitsandbytes") {
  for (const auto& device : golden::devices()) {
    const bool cpu = device.filename() == "cpu";
    const golden::Tensors file(device / "int8.safetensors");
    const auto cases = golden::cases(device, "int8");
    CHECK(cases.size() == 12);
    for (const auto& [name, sizes] : cases) {
      const std::string text = name;
      CAPTURE(text);
      const auto weight = file.floats(name + ".weight");
      const auto codes = file.get<std::int8_t>(name + ".codes");
      const auto absmax = file.get<float>(name + ".absmax");
      QuantizedTensor<INT8> tensor(Shape{sizes.at(0), sizes.at(1)});
      std::vector<std::byte> segment(tensor.bytes());
      quantize(std::span<const float>(weight), tensor, segment, name);
      tensor.bind(segment.data());
      CHECK(std::equal(absmax.begin(), absmax.end(), tensor.scales().begin(), tensor.scales().end()));
      REQUIRE(codes.size() == weight.size());
      for (std::size_t i = 0; i < codes.size(); ++i) {
        const int ours = tensor.codes()[i];
        const int theirs = codes[i];
        CAPTURE(i);
        CAPTURE(ours);
        CAPTURE(theirs);
        if (cpu) {
          REQUIRE(ours == theirs);
        } else {  // CUDA takes an approximate reciprocal
          const float y = INT8::prepare(weight[i]) * INT8::inverse_of(tensor.scales()[i / tensor.group()]);
          const float tie = static_cast<float>(ours + theirs) * 0.5f;
          REQUIRE((ours == theirs || (std::abs(ours - theirs) == 1 && ulps(y, tie) <= 3)));
        }
      }
    }
  }
}

TEST_CASE("golden: FP8 casts are those of PyTorch, and rows differ only next to ties") {
  for (const auto& device : golden::devices()) {
    if (device.filename() != "cpu") continue;  // the format's oracle is PyTorch on the CPU
    const golden::Tensors file(device / "fp8.safetensors");
    const auto decoded = file.get<float>("decoded");
    REQUIRE(decoded.size() == 256);
    for (std::size_t code = 0; code < 256; ++code) {
      const float value = FP8::value_of(static_cast<std::uint8_t>(code));
      CHECK((value == decoded[code] || (std::isnan(value) && std::isnan(decoded[code]))));
    }
    const auto input = file.get<float>("cast.input");
    const auto cast = file.get<std::uint8_t>("cast.codes");
    REQUIRE(input.size() > 500);
    for (std::size_t i = 0; i < input.size(); ++i) {
      const float value = input[i];
      CAPTURE(value);
      CHECK(FP8::bits_of(value) == cast[i]);
    }
    const auto cases = golden::cases(device, "fp8");
    CHECK(cases.size() == 3);
    for (const auto& [name, sizes] : cases) {
      const auto weight = file.floats(name + ".weight");
      const auto codes = file.get<std::uint8_t>(name + ".codes");
      const auto scales = file.get<float>(name + ".scales");
      QuantizedTensor<FP8> tensor(Shape{sizes.at(0), sizes.at(1)});
      std::vector<std::byte> segment(tensor.bytes());
      quantize(std::span<const float>(weight), tensor, segment, name);
      tensor.bind(segment.data());
      CHECK(std::equal(scales.begin(), scales.end(), tensor.scales().begin(), tensor.scales().end()));
      std::size_t different = 0;
      for (std::size_t i = 0; i < codes.size(); ++i) {
        const std::uint8_t ours = tensor.codes()[i];
        if (ours == codes[i] || (codes[i] == 0x80 && ours == 0)) continue;
        ++different;  // PyTorch divided by the scale, FP8 multiplies by 448 / absmax
        const float y = weight[i] * FP8::inverse_of(scales[i / tensor.group()] * FP8::largest);
        const float tie = (FP8::value_of(ours) + FP8::value_of(codes[i])) * 0.5f;
        CAPTURE(i);
        CAPTURE(y);
        REQUIRE(std::abs(int{ours} - int{codes[i]}) == 1);
        REQUIRE(ulps(y, tie) <= 3);
      }
      CHECK(different <= codes.size() / 50);
      put<std::uint8_t>(segment, 0, codes);
      check_output(file, name + ".output", tensor, segment);
    }
  }
}
