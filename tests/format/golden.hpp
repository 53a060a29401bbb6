#pragma once
// Reads the golden vectors of the formats, see tests/golden/make_formats.py.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/io/json.hpp"
#include "ebb/io/json_parser.hpp"
#include "ebb/io/safetensors.hpp"

namespace golden {

/// Directories of golden vectors, one a device that they were made on ("cpu", "cuda"), in this order.
inline std::vector<std::filesystem::path> devices() {
  std::vector<std::filesystem::path> found;
  for (const char* device : {"cpu", "cuda"}) {
    const auto path = std::filesystem::path(EBB_GOLDEN_DIR) / "formats" / device;
    if (std::filesystem::exists(path / "index.json")) found.push_back(path);
  }
  return found;
}

/// The cases of one file: names, and the numbers that the generator gives of each (a block size, or a shape).
inline std::vector<std::pair<std::string, std::vector<std::size_t>>> cases(const std::filesystem::path& device,
                                                                           const std::string& file) {
  std::vector<std::pair<std::string, std::vector<std::size_t>>> result;
  const ebb::Json index = ebb::JsonParser::parse_file(device / "index.json");
  const ebb::Json* entries = index.find(file);
  if (entries == nullptr || entries->object() == nullptr) throw std::runtime_error("no golden cases: " + file);
  const auto number = [](const ebb::Json& value) {
    return static_cast<std::size_t>(value.integer() ? *value.integer() : 0);
  };
  for (const auto& [name, value] : *entries->object()) {
    std::vector<std::size_t> numbers;
    if (value.array() == nullptr)
      numbers.push_back(number(value));
    else
      for (const ebb::Json& each : *value.array()) numbers.push_back(number(each));
    result.emplace_back(name, numbers);
  }
  return result;
}

/// One safetensors file.
class Tensors {
 public:
  explicit Tensors(const std::filesystem::path& path) : file_(ebb::SafetensorsFile::open(path)) {}

  bool contains(const std::string& name) const { return file_.contains(name); }
  ebb::DType dtype(const std::string& name) const { return file_.at(name).dtype; }

  /// The elements, reinterpreted as T (the size of the tensor must be a multiple of T's).
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const auto bytes = file_.bytes_of(name);
    if (bytes.size() % sizeof(T) != 0) throw std::runtime_error("golden tensor of another type: " + name);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  /// The elements of any floating-point type as float32, exact.
  std::vector<float> floats(const std::string& name) const {
    std::vector<float> values;
    if (dtype(name) == ebb::DType::bf16)
      for (const auto value : get<ebb::bfloat16>(name)) values.push_back(value);
    else if (dtype(name) == ebb::DType::f16)
      for (const auto value : get<ebb::float16>(name)) values.push_back(value);
    else
      values = get<float>(name);
    return values;
  }

 private:
  ebb::SafetensorsFile file_;
};

}  // namespace golden
