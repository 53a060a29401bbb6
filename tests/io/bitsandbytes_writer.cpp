#include "ebb/io/bitsandbytes_writer.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ebb/io/checkpoint.hpp"
#include "ebb/io/stored_quantization.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "support/stored_weight.hpp"
#include "support/temporary_directory.hpp"

using ebb::Checkpoint;
using ebb::DoubleQuantization;
using ebb::DType;
using ebb::FormatChoice;
using ebb::Shape;
using ebb::testing::OwnedTensor;
using Kind = ebb::FormatChoice::Kind;

namespace {
/// Sixteen values of one's own.
struct Other : ebb::NF4 {
  static constexpr std::string_view name = "other";
};
static_assert(ebb::BlockFormat<Other>);

/// The shape that quant_state names, or of an INT8 weight its own: what a model would expect.
Shape shape_of(const Checkpoint& checkpoint, const std::string& name) {
  for (const std::string& part : checkpoint.names_with_prefix(name + ".quant_state")) {
    const auto bytes = checkpoint.bytes_of(part);
    const ebb::Json state = ebb::JsonParser::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, part);
    std::vector<std::size_t> extents;
    for (const ebb::Json& extent : *state.find("shape")->array())
      extents.push_back(static_cast<std::size_t>(*extent.integer()));
    return Shape(std::span<const std::size_t>(extents));
  }
  return checkpoint.at(name).shape;
}

DType quantized_dtype(const Checkpoint& checkpoint, const std::string& name) {
  for (const std::string& part : checkpoint.names_with_prefix(name + ".quant_state")) {
    const auto bytes = checkpoint.bytes_of(part);
    const ebb::Json state = ebb::JsonParser::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, part);
    return ebb::bitsandbytes::torch_dtype(*state.find("dtype")->string());
  }
  return DType::f32;
}

/// Elements of the tensor, dequantized to T, that differ from `expected` by more than `tolerance`, relative.
template <class T>
std::size_t differences(const ebb::AnyTensor& tensor, const ebb::TensorView& expected, float tolerance) {
  std::vector<T> found(tensor.elements());
  std::vector<float> wanted(tensor.elements());
  ebb::dequantize(tensor, 0, std::span<T>(found));
  ebb::copy_elements(expected, std::span<float>(wanted));
  std::size_t count = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    count += std::abs(static_cast<float>(found[i]) - wanted[i]) <= tolerance * std::abs(wanted[i]) ? 0 : 1;
  return count;
}

std::size_t differences(const ebb::AnyTensor& tensor, const ebb::TensorView& expected) {
  if (expected.dtype == DType::bf16) return differences<ebb::bfloat16>(tensor, expected, 0.0f);
  if (expected.dtype == DType::f16) return differences<ebb::float16>(tensor, expected, 0.0f);
  // The expected INT8 weights are codes * SCB / 127; bitsandbytes' own dequantization multiplies by float32(1 / 127).
  return differences<float>(tensor, expected, tensor.holds<ebb::INT8>() ? 0x1p-22f : 0.0f);
}

}  // namespace

TEST_CASE("bitsandbytes: components that it quantized are read exactly and written back byte for byte") {
  struct Component {
    const char* directory;
    Kind kind;
    std::size_t block_size;
    DoubleQuantization nested;
    std::size_t weights;
  };
  constexpr auto off = DoubleQuantization::off;
  constexpr auto on = DoubleQuantization::on;
  for (const Component& component :
       {Component{"transformer_nf4", Kind::nf4, 64, off, 56}, Component{"transformer_nf4_dq", Kind::nf4, 64, on, 56},
        Component{"transformer_fp4_bs128", Kind::fp4, 128, off, 56},
        Component{"transformer_nf4_storage_bf16", Kind::nf4, 64, off, 50},
        Component{"transformer_int8", Kind::int8, 64, off, 56}, Component{"text_encoder_2_nf4", Kind::nf4, 64, off, 12},
        Component{"text_encoder_2_nf4_dq", Kind::nf4, 64, on, 12}}) {
    CAPTURE(component.directory);
    const auto directory = std::filesystem::path(EBB_GOLDEN_DIR) / "checkpoints" / component.directory;
    const Checkpoint checkpoint = Checkpoint::open(directory);
    const auto expected = ebb::SafetensorsFile::open(directory / "expected.safetensors");
    CHECK(ebb::StoredQuantization::from_file(directory / "config.json")->kind == component.kind);
    std::size_t weights = 0;
    std::size_t parts = 0;
    for (const std::string& name : checkpoint.names()) {
      CAPTURE(name);
      if (ebb::bitsandbytes::weight_of(name)) ++parts;
      if (!name.ends_with(".weight")) continue;
      const Shape shape = shape_of(checkpoint, name);
      const auto choice = ebb::bitsandbytes::stored_choice(checkpoint, name, shape);
      if (!choice) continue;
      ++weights;
      CHECK(choice->kind == component.kind);
      CHECK(choice->block == ebb::BlockOptions{component.block_size, component.nested});
      OwnedTensor target(shape, *choice);
      ebb::bitsandbytes::read_into(checkpoint, name, target.tensor, target.segment.bytes());
      if (expected.contains(name)) CHECK(differences(target.tensor, expected.at(name)) == 0);
      for (const auto& part :
           ebb::bitsandbytes::stored_tensors(name, target.tensor, quantized_dtype(checkpoint, name))) {
        CAPTURE(part.declaration.name);
        const auto stored = checkpoint.bytes_of(part.declaration.name);
        REQUIRE(stored.size() == part.bytes().size());
        CHECK(std::memcmp(stored.data(), part.bytes().data(), stored.size()) == 0);
        if (part.declaration.name != name) --parts;
        if (part.declaration.name == name && std::string(component.directory).ends_with("storage_bf16")) continue;
        CHECK(checkpoint.at(part.declaration.name).dtype == part.declaration.dtype);
        CHECK(checkpoint.at(part.declaration.name).shape == part.declaration.shape);
      }
    }
    CHECK(weights == component.weights);
    CHECK(parts == 0);
    CHECK(expected.names().size() > 0);
  }
}

TEST_CASE("bitsandbytes: quant_state is the text that Python writes") {
  const FormatChoice plain{.kind = Kind::nf4, .block = {.block_size = 64}};
  const auto set = ebb::testing::stored_weight(plain, Shape{4, 64});
  CHECK(set.text("layer.weight.quant_state.bitsandbytes__nf4") ==
        R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 64]})");
  ebb::QuantizedTensor<ebb::FP4> tensor(Shape{2, 64}, {.block_size = 128, .nested = DoubleQuantization::on});
  ebb::AlignedBuffer segment(tensor.bytes());
  tensor.bind(segment.data());
  const float mean = 0.1230214461684227f;
  std::memcpy(segment.data() + tensor.layout().nested_offset + ebb::nested_mean_at(tensor.layout()), &mean,
              sizeof(mean));
  CHECK(ebb::bitsandbytes::quant_state(tensor, DType::f16) ==
        R"({"quant_type": "fp4", "blocksize": 128, "dtype": "float16", "shape": [2, 64], "nested_blocksize": 256, )"
        R"("nested_dtype": "float32", "nested_offset": 0.1230214461684227})");
  CHECK_THROWS_AS(ebb::bitsandbytes::quant_state(tensor, DType::i8), ebb::ConfigError);
}

TEST_CASE("bitsandbytes: a block format of one's own is not written as one of its") {
  const ebb::AnyOf<Other> tensor(Shape{2, 64});
  CHECK_THROWS_WITH_AS(ebb::bitsandbytes::stored_tensors("p.weight", tensor, DType::f32),
                       "tensor 'p.weight': bitsandbytes stores no other weights", ebb::ConfigError);
}

TEST_CASE("bitsandbytes: names, order, dtypes and shapes of the parts") {
  const auto listed = [](const FormatChoice& choice) {
    OwnedTensor owned(Shape{3, 43}, choice);
    std::memset(owned.segment.data(), 0, owned.segment.size());
    std::string text;
    for (const auto& part : ebb::bitsandbytes::stored_tensors("p.weight", owned.tensor, DType::f32))
      text += ebb::concat(part.declaration.name, ' ', ebb::name_of(part.declaration.dtype), ' ',
                          part.declaration.shape.text(), '\n');
    return text;
  };
  CHECK(listed({.kind = Kind::nf4}) ==
        "p.weight U8 [65, 1]\np.weight.absmax F32 [3]\np.weight.quant_map F32 [16]\n"
        "p.weight.quant_state.bitsandbytes__nf4 U8 [76]\n");
  CHECK(listed({.kind = Kind::fp4, .block = {32, DoubleQuantization::on}}) ==
        "p.weight U8 [65, 1]\np.weight.absmax U8 [5]\np.weight.quant_map F32 [16]\np.weight.nested_absmax F32 [1]\n"
        "p.weight.nested_quant_map F32 [256]\np.weight.quant_state.bitsandbytes__fp4 U8 [150]\n");
  CHECK(listed({.kind = Kind::int8}) == "p.weight I8 [3, 43]\np.SCB F32 [3]\np.weight_format U8 []\n");
  CHECK_THROWS_AS(listed({.kind = Kind::fp8}), ebb::ConfigError);
  ebb::QuantizedTensor<ebb::INT8> odd(Shape{1, 1});
  CHECK_THROWS_AS(ebb::bitsandbytes::stored_tensors("p.w", odd, DType::f32), ebb::ConfigError);
  ebb::AnyTensor dense;
  dense.emplace<ebb::BF16>(Shape{2, 3});
  ebb::AlignedBuffer segment(dense.bytes());
  dense.bind(segment.data());
  const auto parts = ebb::bitsandbytes::stored_tensors("p.weight", dense, DType::f32);
  CHECK(parts.size() == 1);
  CHECK(parts[0].declaration.dtype == DType::bf16);
  CHECK(parts[0].bytes().size() == 12);
}
