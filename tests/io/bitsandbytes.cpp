#include "ebb/io/bitsandbytes.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ebb/tensor/dequantize.hpp"
#include "support/stored_weight.hpp"
#include "support/temporary_directory.hpp"

using ebb::BlockOptions;
using ebb::Checkpoint;
using ebb::DoubleQuantization;
using ebb::DType;
using ebb::FileError;
using ebb::FormatChoice;
using ebb::Shape;
using Kind = ebb::FormatChoice::Kind;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::OwnedTensor;
using ebb::testing::stored_weight;
using ebb::testing::TemporaryDirectory;
using ebb::testing::TensorSet;

namespace {

constexpr auto name = "layer.weight";
const std::string state_name = "layer.weight.quant_state.bitsandbytes__nf4";
const FormatChoice nf4{.kind = Kind::nf4, .block = {.block_size = 64}};
const FormatChoice nested{.kind = Kind::nf4, .block = {.block_size = 64, .nested = DoubleQuantization::on}};
const FormatChoice int8{.kind = Kind::int8};
const Shape shape{6, 50};  // 300 elements: 5 blocks of 64, the last one short

/// Reads the weight of `set` with everything checked, as a loader does.
void read(const TensorSet& set, const Shape& expected = shape) {
  const TemporaryDirectory directory;
  set.save(directory / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  const auto choice = ebb::bitsandbytes::stored_choice(checkpoint, name, expected);
  if (!choice) return;
  OwnedTensor target(expected, *choice);
  ebb::bitsandbytes::read_into(checkpoint, name, target.tensor, target.segment.bytes());
}

/// Every refusal names the file and a tensor.
void refused(const TensorSet& set, std::vector<std::string> parts, const Shape& expected = shape) {
  parts.push_back("model.safetensors: tensor 'layer.");
  CHECK(first_missing(message_of<FileError>([&] { read(set, expected); }), parts) == "");
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("bitsandbytes: the weight that a part belongs to") {
  using ebb::bitsandbytes::weight_of;
  for (const char* part :
       {"p.weight.absmax", "p.weight.quant_map", "p.weight.nested_absmax", "p.weight.nested_quant_map",
        "p.weight.quant_state.bitsandbytes__nf4", "p.weight.quant_state.bitsandbytes__fp4", "p.SCB", "p.weight_format"})
    CHECK(weight_of(part).value() == "p.weight");
  for (const char* other : {"p.weight", "p.bias", "absmax", "p.weight.quant_state.bitsandbytes__af4", ""})
    CHECK_FALSE(weight_of(other));
}

TEST_CASE("bitsandbytes: a stored weight keeps every bit, padding included") {
  for (const FormatChoice& choice :
       {nf4, nested, int8, FormatChoice{.kind = Kind::fp4, .block = {.block_size = 32}},
        FormatChoice{.kind = Kind::fp4, .block = {.block_size = 128, .nested = DoubleQuantization::on}}})
    for (const Shape& each : {shape, Shape{1, 1}, Shape{3, 7}, Shape{130, 257}}) {
      CAPTURE(choice.name());
      CAPTURE(each.text());
      const TensorSet set = stored_weight(choice, each);
      const TemporaryDirectory directory;
      set.save(directory / "model.safetensors");
      const Checkpoint checkpoint = Checkpoint::open(directory.path());
      const auto found = ebb::bitsandbytes::stored_choice(checkpoint, name, each);
      REQUIRE(found);
      CHECK(found->kind == choice.kind);
      if (choice.kind != Kind::int8) CHECK(found->block == choice.block);
      OwnedTensor target(each, *found);
      std::memset(target.segment.data(), 0xee, target.segment.size());
      ebb::bitsandbytes::read_into(checkpoint, name, target.tensor, target.segment.bytes());
      for (const auto& part : ebb::bitsandbytes::stored_tensors(name, target.tensor, DType::bf16)) {
        const auto stored = checkpoint.bytes_of(part.declaration.name);
        CAPTURE(part.declaration.name);
        REQUIRE(stored.size() == part.bytes().size());
        CHECK(std::memcmp(stored.data(), part.bytes().data(), stored.size()) == 0);
      }
      const auto& layout = target.tensor.layout();
      for (std::size_t i = layout.codes_bytes; i < layout.scales_offset; ++i)
        REQUIRE(target.segment.data()[i] == std::byte{0});
      for (std::size_t i = layout.nested_offset + layout.nested_bytes; i < layout.bytes; ++i)
        REQUIRE(target.segment.data()[i] == std::byte{0});
    }
}

TEST_CASE("bitsandbytes: packed codes are read from every storage type") {
  const Shape even{8, 40};
  for (const DType storage : {DType::u8, DType::i8, DType::f16, DType::bf16, DType::f32, DType::i64}) {
    TensorSet set = stored_weight(nf4, even);
    auto& codes = set.parts.at(name);
    codes.declaration.dtype = storage;
    codes.declaration.shape = {codes.bytes.size() / ebb::size_of(storage), 1};
    CHECK_NOTHROW(read(set, even));
  }
}

TEST_CASE("bitsandbytes: float64 storage, which no other tensor may have") {
  const TemporaryDirectory directory;
  TensorSet set = stored_weight(nf4, Shape{8, 40});
  set.parts.at(name).declaration.dtype = DType::i64;
  set.parts.at(name).declaration.shape = {20};
  set.save(directory / "model.safetensors");
  const std::string text = TemporaryDirectory::read(directory / "model.safetensors");
  directory.write("model.safetensors", replaced(text, "I64", "F64"));
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  CHECK(ebb::bitsandbytes::stored_choice(checkpoint, name, Shape{8, 40}).has_value());
}

TEST_CASE("bitsandbytes: plain and missing tensors have no stored format") {
  const TemporaryDirectory directory;
  TensorSet set;
  set.put(name, DType::bf16, {2, 2}, std::vector<std::byte>(8));
  set.save(directory / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  CHECK_FALSE(ebb::bitsandbytes::stored_choice(checkpoint, name, {2, 2}));
  CHECK_FALSE(ebb::bitsandbytes::stored_choice(checkpoint, "other.weight", {2, 2}));
}

TEST_CASE("bitsandbytes: a target that does not fit") {
  const TemporaryDirectory directory;
  stored_weight(nf4, shape).save(directory / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  const auto into = [&](const FormatChoice& choice) {
    OwnedTensor target(shape, choice);
    return message_of<ebb::ConfigError>(
        [&] { ebb::bitsandbytes::read_into(checkpoint, name, target.tensor, target.segment.bytes()); });
  };
  CHECK(first_missing(into(int8), {name, "stored as nf4 with block size 64", "int8"}) == "");
  CHECK(first_missing(into(nested), {name, "nf4"}) == "");
  CHECK(first_missing(into({.kind = Kind::nf4, .block = {.block_size = 128}}), {"block size 64"}) == "");
  CHECK(first_missing(into({.kind = Kind::fp8}), {"no fp8"}) == "");
  OwnedTensor target(shape, nf4);
  CHECK_THROWS_AS(ebb::bitsandbytes::read_into(checkpoint, name, target.tensor, target.segment.bytes().first(100)),
                  ebb::ShapeError);
}

TEST_CASE("bitsandbytes: damaged 4-bit weights are refused") {
  TensorSet set = stored_weight(nf4, shape);
  const std::string state = set.text(state_name);
  const auto with_state = [&](const std::string& text, const std::vector<std::string>& parts) {
    set.put_text(state_name, text);
    refused(set, parts);
  };
  SUBCASE("nothing wrong") { CHECK_NOTHROW(read(set)); }
  SUBCASE("another shape expected") { refused(set, {state_name, "shape: expected [50, 6]", "found [6, 50]"}, {50, 6}); }
  SUBCASE("absmax too short") {
    set.resize("layer.weight.absmax", 4);
    refused(set, {"layer.weight.absmax", "expected 5 elements", "[6, 50]", "found 4"});
  }
  SUBCASE("absmax too long") {
    set.resize("layer.weight.absmax", 6);
    refused(set, {"layer.weight.absmax", "expected 5 elements", "found 6"});
  }
  SUBCASE("absmax of another dtype") {
    set.parts.at("layer.weight.absmax").declaration.dtype = DType::u8;
    set.resize("layer.weight.absmax", 5);
    refused(set, {"layer.weight.absmax", "expected dtype F32", "found U8"});
  }
  SUBCASE("absmax missing") {
    set.parts.erase("layer.weight.absmax");
    refused(set, {"layer.weight.absmax", "missing", "F32 [5]"});
  }
  SUBCASE("absmax not finite") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(set.parts.at("layer.weight.absmax").bytes.data() + 8, &nan, sizeof(nan));
    refused(set, {"layer.weight.absmax", "entry 2", "finite", "nan"});
  }
  SUBCASE("codes too short") {
    set.resize(name, 149);
    refused(set, {"expected 150 bytes of packed codes", "found 149"});
  }
  SUBCASE("quant_map missing") {
    set.parts.erase("layer.weight.quant_map");
    refused(set, {"layer.weight.quant_map", "missing"});
  }
  SUBCASE("quant_map too short") {
    set.resize("layer.weight.quant_map", 15);
    refused(set, {"layer.weight.quant_map", "expected 16", "found 15"});
  }
  SUBCASE("quant_map with another value") {
    set.parts.at("layer.weight.quant_map").bytes[5 * 4] ^= std::byte{1};
    refused(set, {"layer.weight.quant_map", "entry 5: expected -0.1847734302282333", "found -0.18477"});
  }
  SUBCASE("quant_map with NaN") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(set.parts.at("layer.weight.quant_map").bytes.data(), &nan, sizeof(nan));
    refused(set, {"layer.weight.quant_map", "entry 0", "found NaN"});
  }
  SUBCASE("no quant_state") {
    set.parts.erase(state_name);
    refused(set, {"expected exactly one .quant_state.bitsandbytes__nf4", "found 0"});
  }
  SUBCASE("two quant_states") {
    set.put_text("layer.weight.quant_state.bitsandbytes__fp4", state);
    refused(set, {"exactly one", "found 2"});
  }
  SUBCASE("quant_state of another format") {
    set.parts.erase(state_name);
    set.put_text("layer.weight.quant_state.bitsandbytes__af4", state);
    refused(set, {"bitsandbytes__af4", "bitsandbytes__nf4 or bitsandbytes__fp4"});
  }
  SUBCASE("only packed codes") {
    TensorSet alone;
    alone.parts[name] = set.parts.at(name);
    refused(alone, {"is packed (U8)", "quant_state.bitsandbytes__nf4", "absmax", "found neither"});
  }
  SUBCASE("unpacked state") {
    set.put("layer.weight.blocksize", DType::i64, {}, std::vector<std::byte>(8));
    refused(set, {"layer.weight.blocksize", "no part of a 4-bit weight", "packed form"});
  }
  SUBCASE("no JSON") { with_state("{", {state_name, "not valid JSON at byte 1"}); }
  SUBCASE("JSON too deep") { with_state(std::string(100, '['), {state_name, "nested too deep"}); }
  SUBCASE("no object") { with_state("[]", {state_name, "expected a JSON object"}); }
  SUBCASE("unknown entry") { with_state(replaced(state, "{", "{\"x\": 1, "), {state_name, "\"x\" is not known"}); }
  SUBCASE("quant_type") {
    with_state(replaced(state, "\"nf4\"", "\"fp4\""), {"quant_type: expected \"nf4\", found \"fp4\""});
  }
  SUBCASE("block size 63") {
    with_state(replaced(state, "64", "63"), {"blocksize: expected one of 32, 64", "found 63"});
  }
  SUBCASE("block size 0") { with_state(replaced(state, "64", "0"), {"blocksize", "found 0"}); }
  SUBCASE("block size -64") { with_state(replaced(state, "64", "-64"), {"blocksize", "found -64"}); }
  SUBCASE("block size as text") { with_state(replaced(state, "64", "\"64\""), {"blocksize", "found \"64\""}); }
  SUBCASE("no block size") { with_state(replaced(state, "\"blocksize\": 64, ", ""), {"blocksize", "found none"}); }
  SUBCASE("dtype") { with_state(replaced(state, "bfloat16", "float64"), {"dtype: expected", "found \"float64\""}); }
  SUBCASE("shape") {
    with_state(replaced(state, "[6, 50]", "[50, 6]"), {"shape: expected [6, 50], found [50, 6]"});
    with_state(replaced(state, "[6, 50]", "null"), {"shape: expected [6, 50], found null"});
  }
  SUBCASE("nested state without nested absmax") {
    with_state(replaced(state, "}", ", \"nested_offset\": 0.5}"), {"nested_offset", "alone"});
  }
  SUBCASE("nested map without nested absmax") {
    set.put("layer.weight.nested_quant_map", DType::f32, {256}, std::vector<std::byte>(1024));
    refused(set, {"nested_quant_map", "found none"});
  }
}

TEST_CASE("bitsandbytes: damaged double quantization is refused") {
  TensorSet set = stored_weight(nested, shape);
  const std::string state = set.text(state_name);
  const auto with_state = [&](const std::string& text, const std::vector<std::string>& parts) {
    set.put_text(state_name, text);
    refused(set, parts);
  };
  const auto offset = state.substr(state.find("\"nested_offset\": "));
  SUBCASE("nothing wrong") { CHECK_NOTHROW(read(set)); }
  SUBCASE("absmax is not quantized") {
    set.parts.at("layer.weight.absmax").declaration.dtype = DType::f32;
    set.resize("layer.weight.absmax", 5);
    refused(set, {"layer.weight.absmax", "expected dtype U8", "found F32"});
  }
  SUBCASE("nested absmax too long") {
    set.resize("layer.weight.nested_absmax", 2);
    refused(set, {"layer.weight.nested_absmax", "expected 1", "found 2"});
  }
  SUBCASE("nested absmax not finite") {
    const float infinity = std::numeric_limits<float>::infinity();
    std::memcpy(set.parts.at("layer.weight.nested_absmax").bytes.data(), &infinity, sizeof(infinity));
    refused(set, {"layer.weight.nested_absmax", "entry 0", "finite", "inf"});
  }
  SUBCASE("nested map missing") {
    set.parts.erase("layer.weight.nested_quant_map");
    refused(set, {"layer.weight.nested_quant_map", "missing", "F32 [256]"});
  }
  SUBCASE("nested map of 255") {
    set.resize("layer.weight.nested_quant_map", 255);
    refused(set, {"layer.weight.nested_quant_map", "expected 256", "found 255"});
  }
  SUBCASE("nested map with another value") {
    set.parts.at("layer.weight.nested_quant_map").bytes[4 * 200] ^= std::byte{1};
    refused(set, {"layer.weight.nested_quant_map", "entry 200"});
  }
  SUBCASE("nested block size") {
    with_state(replaced(state, "256", "128"), {"nested_blocksize: expected 256, found 128"});
  }
  SUBCASE("nested dtype") { with_state(replaced(state, "float32", "float16"), {"nested_dtype: expected \"float32\""}); }
  SUBCASE("nested offset is no number") {
    with_state(replaced(state, offset, "\"nested_offset\": \"0\"}"),
               {"nested_offset: expected a finite", "found \"0\""});
  }
  SUBCASE("nested offset overflows") {
    with_state(replaced(state, offset, "\"nested_offset\": 1e300}"), {"nested_offset: expected a finite", "1e+300"});
  }
  SUBCASE("nested offset missing") {
    with_state(replaced(state, ", " + offset, "}"), {"nested_offset", "found the tensor alone"});
  }
}

TEST_CASE("bitsandbytes: damaged INT8 weights are refused") {
  TensorSet set = stored_weight(int8, shape);
  SUBCASE("nothing wrong") { CHECK_NOTHROW(read(set)); }
  SUBCASE("without weight_format, as older versions save") {
    set.parts.erase("layer.weight_format");
    CHECK_NOTHROW(read(set));
  }
  SUBCASE("SCB as a column") {
    set.parts.at("layer.SCB").declaration.shape = {6, 1};
    CHECK_NOTHROW(read(set));
  }
  SUBCASE("another shape expected") {
    refused(set, {"'layer.weight'", "expected shape [50, 6]", "found [6, 50]"}, {50, 6});
  }
  SUBCASE("SCB missing") {
    set.parts.erase("layer.SCB");
    refused(set, {"is I8", "expected 'layer.SCB'"});
  }
  SUBCASE("SCB too short") {
    set.resize("layer.SCB", 5);
    refused(set, {"'layer.SCB'", "expected 6", "found 5"});
  }
  SUBCASE("SCB in half precision") {
    set.parts.at("layer.SCB").declaration.dtype = DType::f16;
    set.resize("layer.SCB", 6);
    refused(set, {"'layer.SCB'", "expected dtype F32", "found F16"});
  }
  SUBCASE("SCB not finite") {
    const float infinity = std::numeric_limits<float>::infinity();
    std::memcpy(set.parts.at("layer.SCB").bytes.data() + 4, &infinity, sizeof(infinity));
    refused(set, {"'layer.SCB'", "entry 1", "finite", "inf"});
  }
  SUBCASE("weight is not I8") {
    set.parts.at(name).declaration.dtype = DType::u8;
    refused(set, {"'layer.weight'", "expected dtype I8", "found U8"});
  }
  SUBCASE("a layout of old GPUs") {
    set.parts.at("layer.weight_format").bytes[0] = std::byte{2};
    refused(set, {"'layer.weight_format'", "expected 0 (row-major), found 2"});
  }
}

TEST_CASE("bitsandbytes: weights with random damage are read or refused, never worse") {
  const TemporaryDirectory directory;
  std::mt19937 random(11);
  const auto below = [&](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
  };
  std::vector<TensorSet> sets;
  for (const FormatChoice& choice : {nf4, nested, int8}) sets.push_back(stored_weight(choice, shape));
  std::size_t read_count = 0;
  constexpr std::size_t rounds = 3000;
  for (std::size_t round = 0; round < rounds; ++round) {
    TensorSet set = sets[round % sets.size()];
    for (std::size_t change = below(2); change < 2; ++change) {
      auto part = std::next(set.parts.begin(), static_cast<std::ptrdiff_t>(below(set.parts.size())));
      if (part->second.bytes.empty()) continue;
      if (below(8) == 0)
        set.resize(part->first, below(part->second.declaration.shape.elements() + 2));
      else if (below(16) == 0)
        set.parts.erase(part);
      else
        part->second.bytes[below(part->second.bytes.size())] = static_cast<std::byte>(below(256));
    }
    try {
      read(set);
      ++read_count;
    } catch (const ebb::Error&) {
    }
  }
  CHECK(read_count > 0);
  CHECK(read_count < rounds);
}
