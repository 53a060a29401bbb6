#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <span>
#include <system_error>
#include <utility>

#include "ebb/core/error.hpp"

namespace ebb {

/// How a range of a mapped file is going to be used.
enum class FileAccess {
  sequential,   // once, from front to back: read far ahead
  random,       // here and there: do not read ahead
  needed_soon,  // start reading now
  done          // drop the pages; they are read again when touched
};

/// A whole file mapped read-only into memory (POSIX). Move-only; the bytes stay where they are when the object is
/// moved. Pages are read when they are touched, and the system may drop them again, so that mapping a file that is
/// larger than memory costs nothing.
///
/// A file that another process truncates while it is mapped makes the next read of the lost pages a SIGBUS, and
/// one that is overwritten in place changes under the reader: replace checkpoints by renaming, as
/// SafetensorsWriter does.
class MappedFile {
 public:
  /// No file.
  MappedFile() = default;

  /// @throws FileError when the file is missing, unreadable or not a regular file
  static MappedFile open(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) throw FileError(concat(path.string(), ": cannot open the file: ", system_text(errno)));
    const Closer closer{descriptor};
    struct stat status {};
    if (::fstat(descriptor, &status) != 0)
      throw FileError(concat(path.string(), ": cannot read the size of the file: ", system_text(errno)));
    if (!S_ISREG(status.st_mode))
      throw FileError(concat(path.string(), ": expected a regular file, found ",
                             S_ISDIR(status.st_mode) ? "a directory" : "a device, pipe or socket"));
    MappedFile file;
    const auto size = static_cast<std::uintmax_t>(status.st_size);
    if (size > std::numeric_limits<std::size_t>::max())
      throw FileError(concat(path.string(), ": ", size, " bytes do not fit the address space"));
    if (size == 0) return file;  // an empty range cannot be mapped
    void* address = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED)
      throw FileError(concat(path.string(), ": cannot map ", size, " bytes: ", system_text(errno)));
    file.data_ = static_cast<const std::byte*>(address);
    file.size_ = static_cast<std::size_t>(size);
    return file;
  }

  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  std::size_t size() const { return size_; }
  /// Valid as long as this object, or the one that it was moved to, lives.
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Tells the system what comes next for [offset, offset + count), cut to the file. A hint: never fails.
  void advise(FileAccess access, std::size_t offset = 0,
              std::size_t count = std::numeric_limits<std::size_t>::max()) const {
    if (offset >= size_) return;
    count = std::min(count, size_ - offset);
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t begin = offset / page * page;
    ::madvise(const_cast<std::byte*>(data_) + begin, count + (offset - begin), advice(access));
  }

 private:
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  };
  static std::string system_text(int code) { return std::generic_category().message(code); }
  static int advice(FileAccess access) {
    switch (access) {
      case FileAccess::sequential:
        return MADV_SEQUENTIAL;
      case FileAccess::random:
        return MADV_RANDOM;
      case FileAccess::needed_soon:
        return MADV_WILLNEED;
      case FileAccess::done:
        return MADV_DONTNEED;
    }
    return MADV_NORMAL;
  }

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ebb
