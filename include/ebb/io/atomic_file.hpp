#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "ebb/core/error.hpp"

namespace ebb {

/// A file that appears under its name all at once (POSIX): bytes go to a temporary file beside it, which `commit` syncs
/// and renames. Until then, and for good without `commit`, the name stays as it was. Move-only.
class AtomicFile {
 public:
  /// @throws FileError when the directory is missing or not writable
  explicit AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
    static std::atomic<unsigned> counter{0};
    auto temporary = path_;
    temporary += concat(".partial-", ::getpid(), "-", counter++);
    descriptor_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail("create the file", errno);
    temporary_ = std::move(temporary);
  }
  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        descriptor_(std::exchange(other.descriptor_, -1)) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  const std::filesystem::path& path() const { return path_; }

  /// @throws FileError when not all bytes can be written, e.g. because the disk is full
  void write_at(std::size_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("write the file", written < 0 ? errno : ENOSPC);
      offset += static_cast<std::size_t>(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  /// Puts the file on the disk under its name; nothing can be written afterwards. @throws FileError
  void commit() {
    if (::fsync(descriptor_) != 0) fail("write the file", errno);
    if (::close(std::exchange(descriptor_, -1)) != 0) fail("write the file", errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename the finished file to this name", errno);
    temporary_.clear();
    // The rename is on the disk when its directory is. Some file systems refuse to sync directories: no harm done.
    const auto parent = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return;
    ::fsync(directory);
    ::close(directory);
  }

  /// Writes a whole text. @throws FileError
  static void write(const std::filesystem::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write_at(0, std::as_bytes(std::span(text)));
    file.commit();
  }

 private:
  [[noreturn]] void fail(std::string_view action, int code) const {
    throw FileError(concat(path_.string(), ": cannot ", action, ": ", std::generic_category().message(code)));
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

}  // namespace ebb
