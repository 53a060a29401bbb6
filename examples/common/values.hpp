#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/io/safetensors.hpp"
#include "ebb/io/safetensors_writer.hpp"

namespace ebb::examples {

/// A dense float32 tensor that a user hands in or takes out, row-major.
struct Values {
  Shape shape;
  std::vector<float> values;
  bool empty() const { return values.empty(); }
};

/// A float tensor of a safetensors file. @throws FileError, also where it holds NaN or infinity, or nothing
inline Values read_values(const SafetensorsFile& file, std::string_view name) {
  const TensorView& tensor = file.at(name);
  if (tensor.shape.elements() == 0)
    throw FileError(concat(file.path().string(), ": tensor '", name, "' is empty: shape ", tensor.shape.text()));
  if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16)
    throw FileError(concat(file.path().string(), ": tensor '", name, "': expected F32, F16 or BF16, found ",
                           name_of(tensor.dtype)));
  Values result{tensor.shape, std::vector<float>(tensor.shape.elements())};
  copy_elements(tensor, std::span<float>(result.values));
  if (!std::all_of(result.values.begin(), result.values.end(), [](float value) { return std::isfinite(value); }))
    throw FileError(concat(file.path().string(), ": tensor '", name, "' holds NaN or infinity"));
  return result;
}

/// A safetensors file with this tensor alone; it appears complete or not at all. @throws FileError
inline void write_values(const std::filesystem::path& path, const char* name, const Shape& shape,
                         std::span<const float> values) {
  const std::vector<TensorDeclaration> declared{{name, DType::f32, shape}};
  SafetensorsWriter writer(path, declared);
  writer.write(name, std::as_bytes(values));
  writer.commit();
}

}  // namespace ebb::examples
