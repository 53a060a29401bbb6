#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/format.hpp"
#include "ebb/io/json.hpp"

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
/// and in pieces of any size. Everything goes to a temporary file beside `path`, which `commit` renames, so that
/// `path` is either complete or as it was before; without `commit` nothing is left behind.
///
/// The layout is that of the reference implementation: tensors with wider elements first, then by name, the header
/// padded with spaces to a multiple of 8 bytes. Equal tensors make equal files.
class SafetensorsWriter {
 public:
  /// @throws FileError when the file cannot be created or a name is used twice
  SafetensorsWriter(std::filesystem::path path, const std::vector<TensorDeclaration>& tensors,
                    const TensorMetadata& metadata = pytorch_metadata)
      : path_(std::move(path)) {
    const std::string header = lay_out(tensors, metadata);
    create();
    try {
      write_at(0, std::as_bytes(std::span(header)));
    } catch (...) {
      discard();  // no destructor runs for an object whose constructor throws
      throw;
    }
  }
  SafetensorsWriter(SafetensorsWriter&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::move(other.temporary_)),
        slots_(std::move(other.slots_)),
        descriptor_(std::exchange(other.descriptor_, -1)) {}
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter() { discard(); }

  const std::filesystem::path& path() const { return path_; }

  /// The next bytes of a tensor, row-major. @throws FileError when they cannot be written (e.g. the disk is full),
  /// ShapeError for an undeclared tensor or more bytes than declared
  void write(std::string_view name, std::span<const std::byte> bytes) {
    const auto at = slots_.find(name);
    if (at == slots_.end()) throw ShapeError(concat(path_.string(), ": tensor '", name, "' was not declared"));
    Slot& slot = at->second;
    if (bytes.size() > slot.end - slot.next)
      throw ShapeError(concat(path_.string(), ": tensor '", name, "': expected at most ", slot.end - slot.next,
                              " more bytes, found ", bytes.size()));
    write_at(slot.next, bytes);
    slot.next += bytes.size();
  }

  /// Makes the file appear under its name, on the disk. @throws ShapeError when bytes of a tensor are missing, FileError
  void commit() {
    for (const auto& [name, slot] : slots_)
      if (slot.next != slot.end)
        throw ShapeError(concat(path_.string(), ": tensor '", name, "': ", slot.end - slot.next,
                                " bytes were not supplied"));
    if (::fsync(descriptor_) != 0) fail("write", errno);
    if (::close(std::exchange(descriptor_, -1)) != 0) fail("write", errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename the finished file to this name", errno);
    temporary_.clear();
    // A rename is on the disk only after its directory is. Some file systems refuse to sync directories: no harm.
    const auto parent = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    if (const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); directory >= 0) {
      ::fsync(directory);
      ::close(directory);
    }
  }

 private:
  struct Slot {
    std::size_t next = 0;  // where the next byte goes
    std::size_t end = 0;
  };

  /// Position in the file's order of dtypes, widest elements first, so that every tensor is aligned.
  static std::size_t rank(DType type) {
    constexpr std::array<DType, 7> order{DType::i64, DType::f32, DType::bf16, DType::f16, DType::f8_e4m3,
                                         DType::i8,  DType::u8};
    return static_cast<std::size_t>(std::find(order.begin(), order.end(), type) - order.begin());
  }

  /// Fills `slots_`; returns length and header.
  std::string lay_out(const std::vector<TensorDeclaration>& tensors, const TensorMetadata& metadata) {
    std::vector<const TensorDeclaration*> order;
    for (const TensorDeclaration& tensor : tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return std::pair(rank(a->dtype), std::string_view(a->name)) < std::pair(rank(b->dtype), std::string_view(b->name));
    });
    std::string header = "{";
    const auto key = [&header](std::string_view name) {
      header += (header.back() == '{' ? "" : ",") + Json::quoted(name, JsonText::utf8) + ":";
    };
    if (!metadata.empty()) {
      key("__metadata__");
      header += '{';
      for (const auto& [name, text] : metadata) {
        key(name);
        header += Json::quoted(text, JsonText::utf8);
      }
      header += '}';
    }
    std::size_t offset = 0;
    for (const TensorDeclaration* tensor : order) {
      const std::size_t end = checked_sum(offset, tensor->bytes());
      if (!slots_.emplace(tensor->name, Slot{offset, end}).second || tensor->name == "__metadata__")
        throw FileError(concat(path_.string(), ": tensor '", tensor->name, "': this name is already taken"));
      key(tensor->name);
      header += concat("{\"dtype\":\"", name_of(tensor->dtype), "\",\"shape\":[");
      for (std::size_t axis = 0; axis < tensor->shape.rank(); ++axis)
        header += (axis ? "," : "") + std::to_string(tensor->shape[axis]);
      header += concat("],\"data_offsets\":[", offset, ",", end, "]}");
      offset = end;
    }
    header += '}';
    header.resize(align_up(header.size(), 8), ' ');
    for (auto& [name, slot] : slots_) {
      slot.next += sizeof(std::uint64_t) + header.size();
      slot.end += sizeof(std::uint64_t) + header.size();
    }
    const auto length = static_cast<std::uint64_t>(header.size());
    std::string prefix(sizeof(length), '\0');
    std::memcpy(prefix.data(), &length, sizeof(length));
    return prefix + header;
  }

  void create() {
    static std::atomic<unsigned> counter{0};
    temporary_ = path_;
    temporary_ += concat(".partial-", ::getpid(), "-", counter++);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ >= 0) return;
    const int code = errno;
    temporary_.clear();
    fail("create", code);
  }

  void write_at(std::size_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("write", written < 0 ? errno : ENOSPC);
      offset += static_cast<std::size_t>(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  [[noreturn]] void fail(std::string_view action, int code) const {
    throw FileError(concat(path_.string(), ": cannot ", action, " the file: ", std::generic_category().message(code)));
  }

  void discard() noexcept {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::map<std::string, Slot, std::less<>> slots_;
  int descriptor_ = -1;
};

}  // namespace ebb
