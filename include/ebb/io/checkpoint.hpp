#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/io/json_parser.hpp"
#include "ebb/io/safetensors.hpp"

namespace ebb {

namespace detail {
/// The entries of `names` that differ least from `wanted` (edit distance), at most three, nearest first.
inline std::vector<std::string> closest_names(std::string_view wanted, const std::vector<std::string>& names) {
  std::vector<std::pair<std::size_t, const std::string*>> ranked;
  std::vector<std::size_t> row;
  wanted = wanted.substr(0, 200);
  for (const std::string& name : names) {
    const std::string_view other = std::string_view(name).substr(0, 200);
    row.resize(other.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i + 1);
      for (std::size_t j = 0; j < other.size(); ++j) {
        const std::size_t changed = diagonal + (wanted[i] == other[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({changed, row[j] + 1, diagonal + 1});
      }
    }
    ranked.emplace_back(row.back(), &name);
  }
  const std::size_t count = std::min<std::size_t>(3, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count), ranked.end());
  std::vector<std::string> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back(*ranked[i].second);
  return result;
}
}  // namespace detail

/// The weights of one component as diffusers or transformers saves them: one safetensors file, or shards with an
/// index. All files stay mapped. Move-only; views survive a move.
class Checkpoint {
 public:
  /// The names, without extension, that are looked for in this order: diffusers' and transformers'.
  static constexpr std::array<std::string_view, 2> stems{"diffusion_pytorch_model", "model"};

  /// Opens the component in `path`, a directory, or a single .safetensors file. `variant` selects files such as
  /// `model.fp16.safetensors`. Where a directory holds both an index and a single file, diffusers' names prefer the
  /// index and transformers' the single file, as those libraries do.
  /// @throws FileError for missing, damaged or contradicting files
  static Checkpoint open(const std::filesystem::path& path, std::string_view variant = {}) {
    Checkpoint checkpoint;
    checkpoint.location_ = path;
    std::error_code unreadable;  // opening says why
    if (!std::filesystem::is_directory(path, unreadable)) {
      checkpoint.add_file(path);
    } else if (const auto found = locate(path, variant); found.extension() == ".json") {
      checkpoint.add_shards(found);
    } else {
      checkpoint.add_file(found);
    }
    for (const auto& [name, file] : checkpoint.owners_) checkpoint.names_.push_back(name);
    return checkpoint;
  }

  /// What `open` was given.
  const std::filesystem::path& location() const { return location_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  /// All tensors, sorted by name.
  const std::vector<std::string>& names() const { return names_; }
  /// The names that begin with `prefix`, sorted.
  std::span<const std::string> names_with_prefix(std::string_view prefix) const {
    const auto first = std::lower_bound(names_.begin(), names_.end(), prefix);
    const auto last = std::find_if_not(first, names_.end(), [&](const auto& name) { return name.starts_with(prefix); });
    return {first, last};
  }

  bool contains(std::string_view name) const { return owners_.find(name) != owners_.end(); }
  /// The tensor, or null. @throws FileError when the tensor exists in a dtype that is not supported
  const TensorView* find(std::string_view name) const {
    const auto at = owners_.find(name);
    return at == owners_.end() ? nullptr : files_[at->second].find(name);
  }
  /// @throws FileError when the tensor is missing (names the nearest ones) or has an unsupported dtype
  const TensorView& at(std::string_view name) const { return files_[owner(name)].at(name); }
  /// The stored bytes of any tensor, whatever its dtype. @throws FileError when the tensor is missing
  std::span<const std::byte> bytes_of(std::string_view name) const { return files_[owner(name)].bytes_of(name); }
  /// The file that holds the tensor. @throws FileError when the tensor is missing
  const std::filesystem::path& file_of(std::string_view name) const { return files_[owner(name)].path(); }

  /// The tensor, if it has this shape. @throws FileError
  const TensorView& expect_shape(std::string_view name, const Shape& shape) const {
    const TensorView& tensor = at(name);
    if (tensor.shape != shape)
      throw FileError(concat(file_of(name).string(), ": tensor '", name, "': expected shape ", shape.text(), ", found ",
                             tensor.shape.text()));
    return tensor;
  }

 private:
  std::size_t owner(std::string_view name) const {
    if (const auto at = owners_.find(name); at != owners_.end()) return at->second;
    std::string nearest;
    for (const std::string& each : detail::closest_names(name, names_)) nearest += (nearest.empty() ? "" : ", ") + each;
    throw FileError(concat(location_.string(), ": missing tensor '", name, "'",
                           nearest.empty() ? ": the file holds no tensors" : "; the nearest names are " + nearest));
  }

  static bool exists(const std::filesystem::path& path) {
    std::error_code unreadable;
    return std::filesystem::exists(path, unreadable);
  }

  static std::filesystem::path locate(const std::filesystem::path& directory, std::string_view variant) {
    const std::string infix = variant.empty() ? std::string() : concat(".", variant);
    std::string tried;
    for (const std::string_view stem : stems) {
      const std::string single = concat(stem, infix, ".safetensors");
      std::vector<std::string> candidates{single, concat(single, ".index.json")};
      if (!variant.empty()) {  // diffusers' older spellings
        candidates.push_back(concat(stem, ".safetensors.index.", variant, ".json"));
        candidates.push_back(concat(stem, ".safetensors.", variant, ".index.json"));
      }
      if (stem == stems[0]) std::rotate(candidates.begin(), candidates.begin() + 1, candidates.end());
      for (const std::string& name : candidates) {
        if (exists(directory / name)) return directory / name;
        tried += (tried.empty() ? "" : ", ") + name;
      }
    }
    throw FileError(concat(directory.string(), ": no weights: expected one of ", tried, other_weights(directory)));
  }

  /// What the directory holds instead, for the message.
  static std::string other_weights(const std::filesystem::path& directory) {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(".safetensors") || name.ends_with(".bin") || name.ends_with(".index.json"))
        found.push_back(name);
    }
    if (error) return concat("; cannot list the directory: ", error.message());
    if (found.empty()) return "; found no weight files";
    std::sort(found.begin(), found.end());
    std::string text = "; found ";
    for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 4); ++i) text += (i ? ", " : "") + found[i];
    return text + (found.size() > 4 ? ", ..." : "") + " (name a variant, or convert .bin files to safetensors)";
  }

  void add_file(const std::filesystem::path& path) {
    files_.push_back(SafetensorsFile::open(path));
    for (const std::string& name : files_.back().names()) {
      const auto [at, fresh] = owners_.emplace(name, files_.size() - 1);
      if (!fresh)
        throw FileError(concat(path.string(), ": tensor '", name, "' is also in ", files_[at->second].path().string(),
                               ": expected each tensor in one shard"));
    }
  }

  void add_shards(const std::filesystem::path& index_path) {
    const Json index = JsonParser::parse_file(index_path);
    const Json* weight_map = index.find("weight_map");
    if (!weight_map || !weight_map->object())
      throw FileError(concat(index_path.string(), ": expected an object 'weight_map', found ",
                             weight_map ? weight_map->type_name() : "none"));
    std::map<std::string, std::size_t> shards;
    for (const auto& [tensor, value] : *weight_map->object()) {
      if (!detail::Utf8::printable(tensor))
        throw FileError(
            concat(index_path.string(), ": tensor ", Json::quoted(tensor), ": the name has control characters"));
      if (!value.string())
        throw FileError(concat(index_path.string(), ": tensor '", tensor, "': expected the name of a shard, found ",
                               value.type_name()));
      const std::string& shard = *value.string();
      check_shard_name(index_path, tensor, shard);
      if (shards.contains(shard)) continue;
      const auto path = index_path.parent_path() / shard;
      if (!exists(path))
        throw FileError(concat(index_path.string(), ": shard ", shard, ", which should hold tensor '", tensor,
                               "', is missing: download it or save the model again"));
      add_file(path);
      shards.emplace(shard, files_.size() - 1);
    }
    for (const auto& [tensor, value] : *weight_map->object()) {
      const std::size_t shard = shards.at(*value.string());
      const auto at = owners_.find(tensor);
      if (at == owners_.end() || at->second != shard)
        throw FileError(concat(index_path.string(), ": tensor '", tensor, "': expected in ", *value.string(),
                               ", found ",
                               at == owners_.end() ? "nowhere" : "in " + files_[at->second].path().string()));
    }
  }

  /// An index must not reach outside its directory, nor to the terminal.
  static void check_shard_name(const std::filesystem::path& index_path, const std::string& tensor,
                               const std::string& shard) {
    using namespace std::string_view_literals;
    if (shard.find_first_of("/\\\0"sv) == shard.npos && shard.ends_with(".safetensors") &&
        detail::Utf8::printable(shard))
      return;
    throw FileError(concat(index_path.string(), ": tensor '", tensor,
                           "': expected the name of a .safetensors file beside the index, found ",
                           Json::quoted(shard)));
  }

  std::filesystem::path location_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t, std::less<>> owners_;  // tensor -> index in files_
  std::vector<std::string> names_;
};

}  // namespace ebb
