#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/io/json_parser.hpp"
#include "ebb/io/mapped_file.hpp"

namespace ebb {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// A tensor as it lies in a mapped file, row-major. `bytes` need not be aligned for the element type: read elements
/// with `element` or `copy_elements`. Valid as long as the file is open.
struct TensorView {
  DType dtype = DType::u8;
  Shape shape;
  std::span<const std::byte> bytes;
};

/// Element `index` of a tensor whose elements are T. The caller has checked dtype and range.
template <class T>
  requires std::is_trivially_copyable_v<T>
T element(const TensorView& tensor, std::size_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

/// All elements of an F32, F16 or BF16 tensor, converted to T (from a wider type: rounded to nearest even).
/// @throws ShapeError when `out` has another number of elements, ConfigError for other dtypes
template <Element T>
void copy_elements(const TensorView& tensor, std::span<T> out) {
  if (out.size() != tensor.shape.elements())
    throw ShapeError(concat("copy_elements: a tensor of shape ", tensor.shape.text(), " has ", tensor.shape.elements(),
                            " elements, found room for ", out.size()));
  const auto convert = [&]<class Stored>(Stored) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = T(static_cast<float>(element<Stored>(tensor, i)));
  };
  if (tensor.dtype == dtype_of<T>) {
    if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), out.size_bytes());
  } else if (tensor.dtype == DType::f32) {
    convert(float{});
  } else if (tensor.dtype == DType::f16) {
    convert(float16{});
  } else if (tensor.dtype == DType::bf16) {
    convert(bfloat16{});
  } else {
    throw ConfigError(concat("copy_elements: expected F32, F16 or BF16, found ", name_of(tensor.dtype)));
  }
}

/// A safetensors file, mapped. Construction checks the whole header against the file (every offset, size and shape;
/// no overlap, no hole), so that every view lies inside the file. Names have no control characters. Move-only; views
/// survive a move.
class SafetensorsFile {
 public:
  /// Largest header that is read; the reference implementation has the same limit.
  static constexpr std::size_t max_header_bytes = 100'000'000;

  /// @throws FileError; the message names file, tensor, what was expected and what was found
  static SafetensorsFile open(const std::filesystem::path& path) {
    SafetensorsFile file;
    file.path_ = path;
    file.map_ = MappedFile::open(path);
    file.read_header();
    return file;
  }

  const std::filesystem::path& path() const { return path_; }
  const MappedFile& map() const { return map_; }

  bool contains(std::string_view name) const { return entries_.find(name) != entries_.end(); }
  /// The tensor, or null. @throws FileError when the tensor exists in a dtype that is not supported
  const TensorView* find(std::string_view name) const {
    const auto at = entries_.find(name);
    if (at == entries_.end()) return nullptr;
    if (!at->second.supported)
      throw FileError(concat(path_.string(), ": tensor '", name, "': dtype ", at->second.dtype_name,
                             " is not supported: expected one of ", known_dtypes()));
    return &at->second.view;
  }
  /// @throws FileError when there is no such tensor
  const TensorView& at(std::string_view name) const {
    if (const TensorView* view = find(name)) return *view;
    throw FileError(concat(path_.string(), ": tensor '", name, "' is missing: found ", entries_.size(), " others"));
  }
  /// The stored bytes of any tensor, whatever its dtype. @throws FileError when there is no such tensor
  std::span<const std::byte> bytes_of(std::string_view name) const {
    const auto at = entries_.find(name);
    return at != entries_.end() ? at->second.view.bytes : this->at(name).bytes;
  }

  /// All names, sorted.
  const std::vector<std::string>& names() const { return names_; }
  /// The `__metadata__` of the header.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

 private:
  struct Entry {
    TensorView view;
    std::string dtype_name;
    bool supported = false;
    std::size_t begin = 0;
  };

  struct StoredType {
    std::string_view name;
    std::size_t bytes;
    std::optional<DType> type;
  };
  static constexpr std::array<StoredType, 17> stored_types{{{"F32", 4, DType::f32},
                                                            {"F16", 2, DType::f16},
                                                            {"BF16", 2, DType::bf16},
                                                            {"F8_E4M3", 1, DType::f8_e4m3},
                                                            {"I8", 1, DType::i8},
                                                            {"U8", 1, DType::u8},
                                                            {"I64", 8, DType::i64},
                                                            {"F64", 8, {}},
                                                            {"BOOL", 1, {}},
                                                            {"I16", 2, {}},
                                                            {"U16", 2, {}},
                                                            {"I32", 4, {}},
                                                            {"U32", 4, {}},
                                                            {"U64", 8, {}},
                                                            {"F8_E5M2", 1, {}},
                                                            {"F8_E8M0", 1, {}},
                                                            {"C64", 8, {}}}};

  static std::string known_dtypes() {
    std::string text;
    for (const StoredType& stored : stored_types)
      if (stored.type) text += (text.empty() ? "" : ", ") + std::string(stored.name);
    return text;
  }

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw FileError(concat(path_.string(), ": ", parts...));
  }

  void read_header() {
    constexpr std::size_t prefix = sizeof(std::uint64_t);
    const std::span<const std::byte> bytes = map_.bytes();
    if (bytes.size() < prefix)
      fail("truncated safetensors file: expected at least ", prefix, " bytes, found ", bytes.size());
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), prefix);
    if (length > max_header_bytes)
      fail("not a safetensors file: expected a header of at most ", max_header_bytes, " bytes, found ", length);
    if (length > bytes.size() - prefix)
      fail("truncated safetensors file: expected a header of ", length, " bytes, found ", bytes.size() - prefix,
           " after the length");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + prefix, length);
    if (!text.starts_with('{')) fail("not a safetensors file: expected a header that begins with '{'");
    const Json header = JsonParser::parse(text, concat(path_.string(), " (safetensors header)"));
    const auto data = bytes.subspan(prefix + static_cast<std::size_t>(length));
    for (const auto& [name, value] : *header.object()) {
      // Names go to terminals, in messages and lists.
      if (!detail::Utf8::printable(name)) fail("tensor ", Json::quoted(name), ": the name has control characters");
      if (name == "__metadata__")
        read_metadata(value);
      else
        entries_.emplace(name, read_entry(name, value, data));
    }
    check_coverage(data.size());
    names_.reserve(entries_.size());
    for (const auto& [name, entry] : entries_) names_.push_back(name);
  }

  void read_metadata(const Json& value) {
    if (!value.object()) fail("__metadata__: expected an object, found ", value.type_name());
    for (const auto& [key, text] : *value.object()) {
      if (!text.string()) fail("__metadata__ ", Json::quoted(key), ": expected a string, found ", text.type_name());
      metadata_.emplace(key, *text.string());
    }
  }

  Entry read_entry(const std::string& name, const Json& value, std::span<const std::byte> data) const {
    const Json* dtype = value.find("dtype");
    if (!dtype || !dtype->string()) fail("tensor '", name, "': expected a dtype, found ", found(dtype));
    const std::vector<std::size_t> extents = sizes(name, "shape", value.find("shape"));
    const std::vector<std::size_t> offsets = sizes(name, "data_offsets", value.find("data_offsets"));
    if (extents.size() > Shape::max_rank)
      fail("tensor '", name, "': expected at most ", Shape::max_rank, " dimensions, found ", extents.size());
    if (offsets.size() != 2) fail("tensor '", name, "': expected 2 data_offsets, found ", offsets.size());
    const std::size_t begin = offsets[0];
    const std::size_t end = offsets[1];
    if (begin > end)
      fail("tensor '", name, "': expected data_offsets in ascending order, found [", begin, ", ", end, "]");
    if (end > data.size())
      fail("tensor '", name, "': data_offsets end at byte ", end, ", found only ", data.size(),
           " bytes of data: the file is truncated or damaged");
    Entry entry;
    entry.view.shape = Shape(std::span<const std::size_t>(extents));
    entry.view.bytes = data.subspan(begin, end - begin);
    entry.dtype_name = *dtype->string();
    if (!detail::Utf8::printable(entry.dtype_name))
      fail("tensor '", name, "': the dtype ", dtype->text(), " has control characters");
    entry.begin = begin;
    for (const StoredType& stored : stored_types) {
      if (stored.name != entry.dtype_name) continue;
      check_size(name, entry, stored.bytes);
      entry.supported = stored.type.has_value();
      if (stored.type) entry.view.dtype = *stored.type;
    }
    return entry;
  }

  void check_size(const std::string& name, const Entry& entry, std::size_t item_bytes) const {
    std::size_t expected = 0;
    try {
      expected = checked_product(entry.view.shape.elements(), item_bytes);
    } catch (const ShapeError&) {
      fail("tensor '", name, "': the size of shape ", entry.view.shape.text(), " overflows 64 bits");
    }
    if (expected != entry.view.bytes.size())
      fail("tensor '", name, "': expected ", expected, " bytes for shape ", entry.view.shape.text(), " in ",
           entry.dtype_name, ", found ", entry.view.bytes.size());
  }

  static std::string_view found(const Json* value) { return value ? value->type_name() : "none"; }

  std::vector<std::size_t> sizes(const std::string& name, std::string_view key, const Json* value) const {
    if (!value || !value->array()) fail("tensor '", name, "': expected an array as ", key, ", found ", found(value));
    std::vector<std::size_t> result;
    for (const Json& item : *value->array()) {
      if (!item.integer() || *item.integer() < 0)
        fail("tensor '", name, "': expected non-negative integers as ", key, ", found ", item.text());
      result.push_back(static_cast<std::size_t>(*item.integer()));
    }
    return result;
  }

  /// The tensors must fill the data section exactly: bytes that no tensor names could hide something.
  void check_coverage(std::size_t data_bytes) const {
    std::vector<std::pair<const std::string*, const Entry*>> order;
    order.reserve(entries_.size());
    for (const auto& [name, entry] : entries_) order.emplace_back(&name, &entry);
    const auto range = [](const auto& item) { return std::pair(item.second->begin, item.second->view.bytes.size()); };
    std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) { return range(a) < range(b); });
    std::size_t expected = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const auto [name, entry] = order[i];
      if (entry->begin < expected)
        fail("tensor '", *name, "' overlaps '", *order[i - 1].first, "': expected its data at byte ", expected,
             " or later, found it at ", entry->begin);
      if (entry->begin > expected)
        fail("tensor '", *name, "': expected its data at byte ", expected, ", found it at ", entry->begin,
             ", after a hole");
      expected += entry->view.bytes.size();
    }
    if (expected != data_bytes) fail("expected ", expected, " bytes of data, as the header says, found ", data_bytes);
  }

  std::filesystem::path path_;
  MappedFile map_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> names_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace ebb
