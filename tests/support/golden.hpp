#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/io/safetensors.hpp"
#include "support/error.hpp"

namespace ebb::testing {

/// A pipeline that diffusers wrote, and what diffusers computed with it (tests/golden/README.md lists the keys).
/// `collection`: "pipelines" has those of FLUX, "wan" those of Wan.
class Golden {
 public:
  explicit Golden(const std::string& name, const std::string& collection = "pipelines")
      : directory_(std::filesystem::path(EBB_GOLDEN_DIR) / collection / name),
        expected_(SafetensorsFile::open(directory_ / "expected.safetensors")),
        facts_(examples::ConfigFile::open(directory_ / "expected.json").json()) {}

  const std::filesystem::path& directory() const { return directory_; }
  const nlohmann::json& facts() const { return facts_; }
  const nlohmann::json& call() const { return facts_.at("call"); }
  bool has(const std::string& key) const { return expected_.contains(key); }
  Shape shape(const std::string& key) const { return expected_.at(key).shape; }

  std::vector<float> floats(const std::string& key) const {
    const TensorView& tensor = expected_.at(key);
    std::vector<float> values(tensor.shape.elements());
    copy_elements(tensor, std::span<float>(values));
    return values;
  }
  /// Token ids, stored as int32.
  std::vector<std::int32_t> ids(const std::string& key) const {
    const auto raw = expected_.bytes_of(key);
    std::vector<std::int32_t> values(raw.size() / sizeof(std::int32_t));
    std::memcpy(values.data(), raw.data(), values.size() * sizeof(std::int32_t));
    return values;
  }
  /// Whole numbers, stored as int64, or numbers of a float type.
  std::vector<float> numbers(const std::string& key) const {
    if (expected_.at(key).dtype != DType::i64) return floats(key);
    const auto raw = expected_.bytes_of(key);
    std::vector<std::int64_t> values(raw.size() / sizeof(std::int64_t));
    std::memcpy(values.data(), raw.data(), raw.size());
    return std::vector<float>(values.begin(), values.end());
  }
  std::vector<std::uint8_t> bytes(const std::string& key) const {
    const auto raw = expected_.at(key).bytes;
    const auto* first = reinterpret_cast<const std::uint8_t*>(raw.data());
    return {first, first + raw.size()};
  }

 private:
  std::filesystem::path directory_;
  SafetensorsFile expected_;
  nlohmann::json facts_;
};

}  // namespace ebb::testing
