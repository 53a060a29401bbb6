#include "ebb/io/load.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "ebb/io/checkpoint.hpp"
#include "ebb/io/safetensors_writer.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/nn/conv.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

// Its jobs hold its address.
static_assert(!std::is_copy_constructible_v<Loader> && !std::is_move_constructible_v<Loader>);

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
