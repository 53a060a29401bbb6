#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/format.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/json.hpp"
#include "ebb/io/safetensors.hpp"

namespace ebb {

/// A tensor that is going to be written.
struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;

  /// @throws ShapeError on overflow
  std::size_t bytes() const { return checked_product(shape.elements(), size_of(dtype)); }
};

/// Text for the `__metadata__` of a file. transformers insists on the format.
using TensorMetadata = std::map<std::string, std::string>;
inline const TensorMetadata pytorch_metadata{{"format", "pt"}};

/// Writes one safetensors file as a stream: the tensors are declared first, then their bytes are supplied in any order
/// and in pieces of any size. The file appears with `commit`, complete; without it nothing changes (see AtomicFile).
///
/// The layout is that of the reference implementation: tensors with wider elements first, then by name, the header
/// padded with spaces to a multiple of 8 bytes. Equal tensors make equal files.
class SafetensorsWriter {
 public:
  /// @throws FileError when the file cannot be created, a name is used twice, or SafetensorsFile would refuse the
  ///         header: names are UTF-8 without control characters, metadata is UTF-8, and the header is at most
  ///         SafetensorsFile::max_header_bytes long; ShapeError when a size overflows
  SafetensorsWriter(std::filesystem::path path, const std::vector<TensorDeclaration>& tensors,
                    const TensorMetadata& metadata = pytorch_metadata)
      : file_(std::move(path)) {
    const std::string header = lay_out(tensors, metadata);
    file_.write_at(0, std::as_bytes(std::span(header)));
  }

  const std::filesystem::path& path() const { return file_.target(); }

  /// The next bytes of a tensor, row-major. @throws FileError when they cannot be written (e.g. the disk is full),
  /// ShapeError for an undeclared tensor or more bytes than declared
  void write(std::string_view name, std::span<const std::byte> bytes) {
    const auto at = slots_.find(name);
    if (at == slots_.end()) throw ShapeError(concat(path().string(), ": tensor '", name, "' was not declared"));
    Slot& slot = at->second;
    if (bytes.size() > slot.end - slot.next)
      throw ShapeError(concat(path().string(), ": tensor '", name, "': expected at most ", slot.end - slot.next,
                              " more bytes, found ", bytes.size()));
    file_.write_at(slot.next, bytes);
    slot.next += bytes.size();
  }

  /// Forces all bytes to disk, see AtomicFile::flush. @throws ShapeError when bytes of a tensor are missing, FileError
  void flush() {
    check_complete();
    file_.flush();
  }

  /// @throws ShapeError when bytes of a tensor are missing, FileError
  void commit() {
    check_complete();
    file_.commit();
  }

  /// @throws ShapeError when bytes of a tensor are missing
  void check_complete() const {
    for (const auto& [name, slot] : slots_)
      if (slot.next != slot.end)
        throw ShapeError(
            concat(path().string(), ": tensor '", name, "': ", slot.end - slot.next, " bytes were not supplied"));
  }

 private:
  struct Slot {
    std::size_t next = 0;  // where in the file the next byte goes
    std::size_t end = 0;
  };

  /// Position in the file's order of dtypes: widest elements first, so that every tensor is aligned.
  static std::size_t rank(DType type) {
    constexpr std::array<DType, 7> order{DType::i64,     DType::f32, DType::bf16, DType::f16,
                                         DType::f8_e4m3, DType::i8,  DType::u8};
    return static_cast<std::size_t>(std::find(order.begin(), order.end(), type) - order.begin());
  }

  /// Fills `slots_`; returns the header with its length in front.
  std::string lay_out(const std::vector<TensorDeclaration>& tensors, const TensorMetadata& metadata) {
    std::vector<const TensorDeclaration*> order;
    for (const TensorDeclaration& tensor : tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return std::pair(rank(a->dtype), std::string_view(a->name)) <
             std::pair(rank(b->dtype), std::string_view(b->name));
    });
    std::string header = "{";
    const auto key = [&header](std::string_view name) {
      header += (header.back() == '{' ? "" : ",") + Json::quoted(name, JsonText::utf8) + ":";
    };
    if (!metadata.empty()) {
      key("__metadata__");
      header += '{';
      for (const auto& [name, text] : metadata) {
        if (!detail::Utf8::valid(name) || !detail::Utf8::valid(text))
          throw FileError(concat(path().string(), ": __metadata__ ", Json::quoted(name), ": expected valid UTF-8"));
        key(name);
        header += Json::quoted(text, JsonText::utf8);
      }
      header += '}';
    }
    std::size_t offset = 0;
    for (const TensorDeclaration* tensor : order) {
      if (!detail::Utf8::printable(tensor->name))
        throw FileError(concat(path().string(), ": tensor ", Json::quoted(tensor->name),
                               ": expected a name in UTF-8 without control characters"));
      const std::size_t end = checked_sum(offset, tensor->bytes());
      if (!slots_.emplace(tensor->name, Slot{offset, end}).second || tensor->name == "__metadata__")
        throw FileError(concat(path().string(), ": tensor '", tensor->name, "': this name is already taken"));
      key(tensor->name);
      header += concat("{\"dtype\":\"", name_of(tensor->dtype), "\",\"shape\":[");
      for (std::size_t axis = 0; axis < tensor->shape.rank(); ++axis)
        header += (axis ? "," : "") + std::to_string(tensor->shape[axis]);
      header += concat("],\"data_offsets\":[", offset, ",", end, "]}");
      offset = end;
    }
    header += '}';
    header.resize(align_up(header.size(), 8), ' ');
    if (header.size() > SafetensorsFile::max_header_bytes)
      throw FileError(concat(path().string(), ": expected a header of at most ", SafetensorsFile::max_header_bytes,
                             " bytes, found ", header.size()));
    const auto length = static_cast<std::uint64_t>(header.size());
    std::string text(sizeof(length), '\0');
    std::memcpy(text.data(), &length, sizeof(length));
    text += header;
    for (auto& [name, slot] : slots_) {
      slot.next += text.size();
      slot.end += text.size();
    }
    return text;
  }

  AtomicFile file_;
  std::map<std::string, Slot, std::less<>> slots_;
};

}  // namespace ebb
