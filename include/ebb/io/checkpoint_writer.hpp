#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/json.hpp"
#include "ebb/io/safetensors_writer.hpp"

namespace ebb {

/// Writes the weights of one component as `save_pretrained` of diffusers and transformers does: `stem.safetensors`, or,
/// above `max_shard_bytes`, shards `stem-00001-of-00003.safetensors` and `stem.safetensors.index.json`.
class CheckpointWriter {
 public:
  static constexpr std::size_t default_max_shard_bytes = 10'000'000'000;

  /// `directory` must exist; `stem` is "diffusion_pytorch_model" or "model". Shards take the tensors in the order of
  /// `tensors`; those of one module (its weight first) stay in one shard, which diffusers needs for quantized weights.
  /// A module larger than `max_shard_bytes` gets a shard of its own. @throws as SafetensorsWriter
  CheckpointWriter(std::filesystem::path directory, std::string stem, const std::vector<TensorDeclaration>& tensors,
                   std::size_t max_shard_bytes = default_max_shard_bytes)
      : directory_(std::move(directory)), stem_(std::move(stem)) {
    const auto shards = split(tensors, max_shard_bytes);
    for (std::size_t index = 0; index < shards.size(); ++index) {
      shards_.emplace_back(directory_ / shard_name(index, shards.size()), shards[index]);
      for (const TensorDeclaration& tensor : shards[index]) {
        if (!owners_.emplace(tensor.name, index).second)
          throw FileError(concat(directory_.string(), ": tensor '", tensor.name, "': this name is already taken"));
        total_bytes_ += tensor.bytes();
      }
    }
  }

  std::size_t shards() const { return shards_.size(); }

  /// The next bytes of a tensor. @throws as SafetensorsWriter
  void write(std::string_view name, std::span<const std::byte> bytes) {
    const auto at = owners_.find(name);
    if (at == owners_.end()) throw ShapeError(concat(directory_.string(), ": tensor '", name, "' was not declared"));
    shards_[at->second].write(name, bytes);
  }

  /// Makes all files appear, the index last, and removes what an earlier save under this stem left beside them. An
  /// error while the files are flushed, such as a full disk, leaves the earlier save as it was; one while they get
  /// their names may leave no index, but never new shards under the index of an earlier save.
  /// @throws ShapeError when bytes of a tensor are missing, FileError
  void commit() {
    for (const SafetensorsWriter& shard : shards_) shard.check_complete();
    for (SafetensorsWriter& shard : shards_) shard.flush();
    const auto index_path = directory_ / (stem_ + ".safetensors.index.json");
    std::optional<AtomicFile> index;
    if (shards_.size() > 1) {
      index.emplace(index_path);
      const std::string text = index_text();
      index->write(std::as_bytes(std::span(text)));
      index->flush();
      remove_index_of_same_shards(index_path);
    }
    for (SafetensorsWriter& shard : shards_) shard.commit();
    if (index) index->commit();
    remove_stale(index_path);
  }

 private:
  std::string shard_name(std::size_t index, std::size_t count) const {
    if (count == 1) return stem_ + ".safetensors";
    std::array<char, 64> suffix;
    std::snprintf(suffix.data(), suffix.size(), "-%05zu-of-%05zu.safetensors", index + 1, count);
    return stem_ + suffix.data();
  }

  static std::vector<std::vector<TensorDeclaration>> split(const std::vector<TensorDeclaration>& tensors,
                                                           std::size_t max_bytes) {
    std::vector<std::vector<TensorDeclaration>> shards(1);
    std::size_t filled = 0;
    for (std::size_t begin = 0; begin < tensors.size();) {
      const std::size_t end = end_of_module(tensors, begin);
      std::size_t bytes = 0;
      for (std::size_t i = begin; i < end; ++i) bytes = checked_sum(bytes, tensors[i].bytes());
      if (filled != 0 && checked_sum(filled, bytes) > max_bytes) {
        shards.emplace_back();
        filled = 0;
      }
      for (; begin < end; ++begin) shards.back().push_back(tensors[begin]);
      filled += bytes;
    }
    return shards;
  }

  /// One past the tensors that follow `x.weight` and are named `x.something`.
  static std::size_t end_of_module(const std::vector<TensorDeclaration>& tensors, std::size_t begin) {
    constexpr std::string_view leaf = ".weight";
    std::size_t end = begin + 1;
    const std::string_view name = tensors[begin].name;
    if (!name.ends_with(leaf)) return end;
    const std::string_view module = name.substr(0, name.size() - leaf.size() + 1);
    while (end < tensors.size() && tensors[end].name.starts_with(module)) ++end;
    return end;
  }

  std::string index_text() const {
    Json::Object weight_map;
    for (const auto& [name, shard] : owners_) weight_map.emplace_back(name, shards_[shard].path().filename().string());
    Json::Object index;
    index.emplace_back("metadata", Json::Object{{"total_size", Json(total_bytes_)}});
    index.emplace_back("weight_map", std::move(weight_map));
    return Json(std::move(index)).text(2) + "\n";
  }

  /// `stem-ddddd-of-ddddd.safetensors`
  bool is_shard_name(std::string_view name) const {
    constexpr std::string_view pattern = "-00000-of-00000.safetensors";
    if (name.size() != stem_.size() + pattern.size() || !name.starts_with(stem_)) return false;
    name.remove_prefix(stem_.size());
    return std::equal(name.begin(), name.end(), pattern.begin(),
                      [](char c, char p) { return p == '0' ? c >= '0' && c <= '9' : c == p; });
  }

  /// Shards appear one after another, and the same names in another save's index would join new ones to old ones: a
  /// checkpoint without an index does not load, a mixed one would.
  void remove_index_of_same_shards(const std::filesystem::path& index_path) const {
    std::error_code error;
    if (std::none_of(shards_.begin(), shards_.end(),
                     [&](const auto& shard) { return std::filesystem::is_regular_file(shard.path(), error); }))
      return;
    std::filesystem::remove(index_path, error);
    if (error)
      throw FileError(concat(index_path.string(), ": cannot remove the index of an earlier save: ", error.message()));
  }

  void remove_stale(const std::filesystem::path& index_path) const try {
    std::vector<std::filesystem::path> stale;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      const std::string name = entry.path().filename().string();
      const bool weights = name == stem_ + ".safetensors" || is_shard_name(name);
      const bool index = name == index_path.filename().string();
      const bool written = index ? shards_.size() > 1
                                 : std::any_of(shards_.begin(), shards_.end(),
                                               [&](const auto& shard) { return shard.path().filename() == name; });
      if ((weights || index) && !written) stale.push_back(entry.path());
    }
    for (const auto& path : stale) std::filesystem::remove(path);
  } catch (const std::filesystem::filesystem_error& error) {
    throw FileError(concat(error.path1().string(), ": cannot remove what an earlier save left in ", directory_.string(),
                           ": ", error.code().message()));
  }

  std::filesystem::path directory_;
  std::string stem_;
  std::vector<SafetensorsWriter> shards_;
  std::map<std::string, std::size_t, std::less<>> owners_;  // tensor -> shard
  std::size_t total_bytes_ = 0;
};

}  // namespace ebb
