#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ebb/io/bitsandbytes_writer.hpp"
#include "ebb/io/safetensors_writer.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/quantize.hpp"

namespace ebb::testing {

/// A tensor file in the making, whose parts a test can damage one by one.
struct TensorSet {
  struct Part {
    TensorDeclaration declaration;
    std::vector<std::byte> bytes;
  };
  std::map<std::string, Part> parts;

  void put(const std::string& name, DType dtype, const Shape& shape, std::span<const std::byte> bytes) {
    parts[name] = {{name, dtype, shape}, {bytes.begin(), bytes.end()}};
  }
  void put_text(const std::string& name, const std::string& text) {
    put(name, DType::u8, {text.size()}, std::as_bytes(std::span(text)));
  }
  std::string text(const std::string& name) const {
    const auto& bytes = parts.at(name).bytes;
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// Cuts or extends a tensor of rank 1 to `count` elements.
  void resize(const std::string& name, std::size_t count) {
    Part& part = parts.at(name);
    part.declaration.shape = {count};
    part.bytes.resize(part.declaration.bytes());
  }
  void save(const std::filesystem::path& path) const {
    std::vector<TensorDeclaration> tensors;
    for (const auto& [name, part] : parts) tensors.push_back(part.declaration);
    SafetensorsWriter writer(path, tensors);
    for (const auto& [name, part] : parts) writer.write(name, part.bytes);
    writer.commit();
  }
};

/// A tensor that owns its segment.
struct OwnedTensor {
  AnyTensor tensor;
  AlignedBuffer segment;

  OwnedTensor(const Shape& shape, const FormatChoice& choice) {
    emplace(tensor, shape, choice);
    segment = AlignedBuffer(tensor.bytes());
    tensor.bind(segment.data());
  }
};

/// The parts of "layer.weight", a deterministic [rows, columns] weight in this format.
inline TensorSet stored_weight(const FormatChoice& choice, const Shape& shape, DType dtype = DType::bf16) {
  OwnedTensor owned(shape, choice);
  std::vector<float> values(shape.elements());
  unsigned state = 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) / 16777216.0f - 0.5f;
  }
  quantize(std::span<const float>(values), owned.tensor, owned.segment.bytes(), "layer.weight");
  TensorSet set;
  for (const auto& part : bitsandbytes::stored_tensors("layer.weight", owned.tensor, dtype))
    set.put(part.declaration.name, part.declaration.dtype, part.declaration.shape, part.bytes());
  return set;
}

}  // namespace ebb::testing
