#include "ebb/io/load.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/io/checkpoint.hpp"
#include "ebb/io/safetensors_writer.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/nn/conv.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "support/stored_weight.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

// Its jobs hold its address.
static_assert(!std::is_copy_constructible_v<Loader> && !std::is_move_constructible_v<Loader>);
// Nor does it outlive the checkpoint.
static_assert(std::is_constructible_v<Loader, nn::Linear&, std::string, const Checkpoint&, LoadOptions> &&
              !std::is_constructible_v<Loader, nn::Linear&, std::string, Checkpoint, LoadOptions>);

namespace {

struct Layers {
  nn::Conv2d flat;
  nn::Conv3d deep;

  static consteval auto members() { return std::tuple{field{"flat", &Layers::flat}, field{"deep", &Layers::deep}}; }
  static Layers make() { return {nn::Conv2d::make(3, 2, 5), nn::Conv3d::make(4, 2, 3, 5)}; }
};

struct Stored {
  std::string name;
  Shape shape;
};

std::vector<Stored> tensors() {
  return {{"flat.weight", {2, 3, 5, 5}}, {"flat.bias", {2}}, {"deep.weight", {2, 4, 3, 5, 5}}, {"deep.bias", {2}}};
}

/// A file of these tensors, each 0, 1, 2, ...
void write(const std::filesystem::path& path, const std::vector<Stored>& stored) {
  std::vector<TensorDeclaration> declarations;
  for (const Stored& tensor : stored) declarations.push_back({tensor.name, DType::f32, tensor.shape});
  SafetensorsWriter writer(path, declarations);
  for (const Stored& tensor : stored) {
    std::vector<float> values(tensor.shape.elements());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    writer.write(tensor.name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

std::vector<Stored> with_shape(const std::string& name, const Shape& shape) {
  auto all = tensors();
  for (Stored& tensor : all)
    if (tensor.name == name) tensor.shape = shape;
  return all;
}

std::string error_of_loading(const std::vector<Stored>& stored) {
  const testing::TemporaryDirectory directory;
  write(directory / "model.safetensors", stored);
  Layers layers = Layers::make();
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  try {
    const Loader loader(layers, "layers", checkpoint, {});
  } catch (const FileError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("filters turn from channels-first into channels-last") {
  const testing::TemporaryDirectory directory;
  {
    write(directory / "model.safetensors", tensors());
    Layers layers = Layers::make();
    const Checkpoint checkpoint = Checkpoint::open(directory.path());
    const Loader loader(layers, "layers", checkpoint, {});
    AlignedBuffer arena(loader.bytes());
    loader.fill(arena.bytes());
    bind_parameters(loader.outline(), arena.data(), [&](std::size_t offset) { return arena.data() + offset; });
    std::vector<float> flat(layers.flat.weight.elements()), deep(layers.deep.weight.elements());
    dequantize(layers.flat.weight, 0, std::span(flat));
    dequantize(layers.deep.weight, 0, std::span(deep));
    std::size_t at = 0;
    for (std::size_t o = 0; o < 2; ++o)
      for (std::size_t y = 0; y < 5; ++y)
        for (std::size_t x = 0; x < 5; ++x)
          for (std::size_t i = 0; i < 3; ++i) CHECK(flat[at++] == static_cast<float>(((o * 3 + i) * 5 + y) * 5 + x));
    at = 0;
    for (std::size_t o = 0; o < 2; ++o)
      for (std::size_t t = 0; t < 3; ++t)
        for (std::size_t y = 0; y < 5; ++y)
          for (std::size_t x = 0; x < 5; ++x)
            for (std::size_t i = 0; i < 4; ++i)
              CHECK(deep[at++] == static_cast<float>((((o * 4 + i) * 3 + t) * 5 + y) * 5 + x));
  }
}

namespace {

template <bool first>
struct Filter {
  static constexpr bool stored_channels_first = first;
  AnyTensor weight;

  static consteval auto members() { return std::tuple{field{"weight", &Filter::weight}}; }
};

}  // namespace

TEST_CASE("a false stored_channels_first is none") {
  const testing::TemporaryDirectory directory;
  write(directory / "model.safetensors", {{"weight", {2, 3, 4}}});
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  const auto loads = [&](auto filter) {
    filter.weight = AnyTensor(Shape{2, 3, 4});
    try {
      const Loader loader(filter, "filter", checkpoint, {});
    } catch (const FileError&) {
      return false;
    }
    return true;
  };
  CHECK(loads(Filter<false>{}));
  CHECK_FALSE(loads(Filter<true>{}));  // memory [2, 3, 4] is file [2, 4, 3]
}

TEST_CASE("other shapes are named, with what was expected") {
  CHECK(error_of_loading(tensors()) == "no error");
  const auto contains = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(contains(error_of_loading(with_shape("deep.weight", {2, 3, 5, 5, 4})),
                 "tensor 'deep.weight': expected shape [2, 4, 3, 5, 5], found [2, 3, 5, 5, 4]"));
  CHECK(contains(error_of_loading(with_shape("flat.weight", {2, 3, 25})),
                 "expected shape [2, 3, 5, 5], found [2, 3, 25]"));
  CHECK(contains(error_of_loading(with_shape("deep.bias", {2, 1})), "expected shape [2], found [2, 1]"));
}

namespace {

/// With every liberty that a file can take.
struct Encoder {
  nn::Linear kept, plain;
  nn::Projection shared;

  static constexpr std::array<std::string_view, 1> keep_in_fp32{"kept"};
  static constexpr std::array<std::string_view, 1> unused_prefixes{"text.unused."};
  static constexpr std::string_view optional_prefix = "text.";
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 1> aliases{
      {{"text.shared.weight", "head.weight"}}};
  static consteval auto members() {
    return std::tuple{field{"text.kept", &Encoder::kept}, field{"text.plain", &Encoder::plain},
                      field{"text.shared", &Encoder::shared}};
  }
  static Encoder make() { return {nn::Linear::make(32, 4), nn::Linear::make(32, 4), nn::Projection::make(32, 2)}; }
};

/// Element `index` of tensor `name`; no bfloat16.
float stored_value(const std::string& name, std::size_t index) {
  return 1.0f + static_cast<float>(index) / 1024.0f + static_cast<float>(name.back()) / 4096.0f;
}

void put(testing::TensorSet& set, const std::string& name, const Shape& shape) {
  std::vector<float> values(shape.elements());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = stored_value(name, i);
  set.put(name, DType::f32, shape, std::as_bytes(std::span(values)));
}

/// The encoder's tensors, `prefix` before each name.
testing::TensorSet encoder(const std::string& prefix = "text.") {
  testing::TensorSet set;
  put(set, prefix + "kept.weight", {4, 32});
  put(set, prefix + "kept.bias", {4});
  put(set, prefix + "plain.weight", {4, 32});
  put(set, prefix + "plain.bias", {4});
  put(set, prefix + "shared.weight", {2, 32});
  return set;
}

/// A model that is loaded from a file of `set`.
template <class Model>
struct Loading {
  testing::TemporaryDirectory directory;
  Checkpoint checkpoint;
  Model model;
  Loader loader;
  AlignedBuffer arena;

  Loading(const testing::TensorSet& set, Model fresh, const LoadOptions& options = {})
      : checkpoint(open(set, directory.path())),
        model(std::move(fresh)),
        loader(model, "model", checkpoint, options),
        arena(loader.bytes()) {}

  void fill() {
    loader.fill(arena.bytes());
    bind_parameters(loader.outline(), arena.data(), [&](std::size_t offset) { return arena.data() + offset; });
  }

 private:
  static Checkpoint open(const testing::TensorSet& set, const std::filesystem::path& path) {
    set.save(path / "model.safetensors");
    return Checkpoint::open(path);
  }
};

template <class Tensor>
std::vector<float> values_of(const Tensor& tensor) {
  std::vector<float> values(tensor.elements());
  dequantize(tensor, 0, std::span(values));
  return values;
}

LoadOptions to_nf4(DType compute = DType::f32) {
  LoadOptions options;
  options.format.kind = FormatChoice::Kind::nf4;
  options.format.block.block_size = 64;
  options.compute = compute;
  return options;
}

testing::TensorSet renamed(const testing::TensorSet& set, const std::string& from, const std::string& to) {
  testing::TensorSet result;
  for (const auto& [name, part] : set.parts)
    result.put(name.starts_with(from) ? to + name.substr(from.size()) : name, part.declaration.dtype,
               part.declaration.shape, part.bytes);
  return result;
}

}  // namespace

TEST_CASE("a file may leave the optional prefix out, use an alias and hold what the model does not need") {
  testing::TensorSet with_unused = encoder();
  put(with_unused, "text.unused.weight", {3});
  testing::TensorSet with_both = encoder();
  put(with_both, "head.weight", {2, 32});
  for (const testing::TensorSet& set :
       {encoder(), encoder(""), renamed(encoder(), "text.shared.", "head."), with_unused, with_both}) {
    Loading loading(set, Encoder::make());
    loading.fill();
    const auto plain = values_of(loading.model.plain.weight);
    const auto shared = values_of(loading.model.shared.weight);
    for (std::size_t i = 0; i < plain.size(); ++i) REQUIRE(plain[i] == stored_value("weight", i));
    for (std::size_t i = 0; i < shared.size(); ++i) REQUIRE(shared[i] == stored_value("weight", i));
  }
  const auto refused = [](const testing::TensorSet& set) {
    return testing::message_of<FileError>([&] { Loading(set, Encoder::make()); });
  };
  testing::TensorSet surplus = encoder();
  put(surplus, "text.unuse.weight", {3});
  CHECK(testing::first_missing(refused(surplus), {"model.safetensors", "'text.unuse.weight'", "not part of the model",
                                                  "expected 5 known tensors"}) == "");
  CHECK(testing::first_missing(refused(renamed(encoder(), "text.plain.", "text.plane.")),
                               {"missing tensor 'text.plain.weight'", "nearest", "text.plane.weight"}) == "");
}

TEST_CASE("what a model keeps in float32 and what is skipped is not quantized; the layout says so") {
  LoadOptions options = to_nf4(DType::bf16);
  options.skip = {"shared"};
  Loading loading(encoder(), Encoder::make(), options);
  CHECK(loading.loader.layout_text() ==
        "text.kept.weight [4, 32]f32 512\n"
        "text.kept.bias [4] 256\n"
        "text.plain.weight [4, 32]nf4/64 256\n"
        "text.plain.bias [4] 256\n"
        "text.shared.weight [2, 32]bf16 256\n");
  loading.fill();
  CHECK(values_of(loading.model.kept.weight)[1] == stored_value("weight", 1));
  CHECK(values_of(loading.model.kept.bias)[1] == stored_value("bias", 1));
  const auto rounded = [](float value) { return static_cast<float>(bfloat16(value)); };
  REQUIRE(rounded(stored_value("bias", 1)) != stored_value("bias", 1));
  CHECK(values_of(loading.model.plain.bias)[1] == rounded(stored_value("bias", 1)));
  CHECK(values_of(loading.model.shared.weight)[1] == rounded(stored_value("weight", 1)));
}

namespace {

struct Layer {
  nn::Projection layer, other;
  static consteval auto members() { return std::tuple{field{"layer", &Layer::layer}, field{"other", &Layer::other}}; }
  static Layer make() { return {nn::Projection::make(64, 4), nn::Projection::make(64, 4)}; }
};

}  // namespace

TEST_CASE("a stored format wins over the one asked for, with one warning") {
  const testing::TensorSet one = testing::stored_weight(to_nf4().format, {4, 64});
  testing::TensorSet set = renamed(one, "layer.", "other.");
  set.parts.insert(one.parts.begin(), one.parts.end());
  LoadOptions options;
  CHECK(Loading(set, Layer::make(), options).loader.warnings().empty());
  CHECK(Loading(set, Layer::make(), to_nf4()).loader.warnings().empty());
  options.format.kind = FormatChoice::Kind::int8;
  const Loading loading(set, Layer::make(), options);
  REQUIRE(loading.loader.warnings().size() == 1);
  CHECK(testing::first_missing(
            loading.loader.warnings()[0],
            {loading.directory.path().string(), "stored as nf4, which wins over the int8 asked for"}) == "");
  CHECK(loading.model.other.weight.format_name() == "nf4");
}

namespace {

struct Stack {
  Repeat<nn::Projection> layers;
  static consteval auto members() { return std::tuple{field{"layers", &Stack::layers}}; }
  static Stack make() {
    Stack stack;
    for (int i = 0; i < 16; ++i) stack.layers.push_back(nn::Projection::make(64, 4));
    return stack;
  }
};

testing::TensorSet stack(float first) {
  testing::TensorSet set;
  for (int i = 0; i < 16; ++i) {
    std::vector<float> values(256, static_cast<float>(i + 1));
    values[0] = first;
    set.put(concat("layers.", i, ".weight"), DType::f32, {4, 64}, std::as_bytes(std::span(values)));
  }
  return set;
}

}  // namespace

TEST_CASE("threads fill what one thread fills, into an arena that is large enough") {
  Loading loading(stack(0.5f), Stack::make(), to_nf4());
  loading.fill();
  LoadOptions options = to_nf4();
  options.threads = 4;
  Loading threaded(stack(0.5f), Stack::make(), options);
  threaded.fill();
  CHECK(std::ranges::equal(loading.arena.bytes(), threaded.arena.bytes()));
  CHECK(testing::first_missing(testing::message_of<MemoryError>(
                                   [&] { loading.loader.fill(loading.arena.bytes().first(loading.arena.size() - 1)); }),
                               {"model", concat("needs ", loading.arena.size(), " bytes"),
                                concat("found ", loading.arena.size() - 1)}) == "");
}

TEST_CASE("a failure on any thread is the loader's failure") {
  LoadOptions options = to_nf4();
  options.threads = 4;
  Loading loading(stack(std::numeric_limits<float>::quiet_NaN()), Stack::make(), options);
  for (int repeat = 0; repeat < 50; ++repeat)  // helpers, too, come first now and then
    REQUIRE(testing::first_missing(testing::message_of<ValueError>([&] { loading.fill(); }),
                                   {".safetensors: tensor 'layers.", "weight'"}) == "");
}
