#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "ebb/core/error.hpp"

namespace ebb {

namespace detail {

/// The partial files of this process, where a signal handler can find them: fixed memory, lock-free flags.
struct PartialFiles {
  enum class State { free, filling, listed };
  static constexpr std::size_t path_bytes = 4096;
  struct Slot {
    std::atomic<State> state{State::free};
    std::array<char, path_bytes> path{};
  };
  static_assert(std::atomic<State>::is_always_lock_free, "a signal handler may not wait for a lock");

  std::array<Slot, 64> slots;

  /// Null when every slot is taken or the path is too long: such a file stays when the process is killed.
  Slot* add(const std::string& path) noexcept {
    if (path.size() >= path_bytes) return nullptr;
    for (Slot& slot : slots) {
      State expected = State::free;
      if (!slot.state.compare_exchange_strong(expected, State::filling)) continue;
      std::memcpy(slot.path.data(), path.c_str(), path.size() + 1);
      slot.state.store(State::listed);
      return &slot;
    }
    return nullptr;
  }

  /// The file has its name, or is gone.
  static void forget(Slot*& slot) noexcept {
    if (slot != nullptr) std::exchange(slot, nullptr)->state.store(State::free);
  }

  /// Async-signal-safe.
  void unlink_all() noexcept {
    for (Slot& slot : slots)
      if (slot.state.load() == State::listed) ::unlink(slot.path.data());
  }
};

inline constinit PartialFiles partial_files;

}  // namespace detail

/// Deletes the files of this process that are being written and have not got their names yet, of AtomicFile and
/// HomeFile. Async-signal-safe: for a signal handler that ends the process without running destructors. Knows 64 files
/// at a time, with paths of less than 4096 bytes; what is begun while 64 others exist is not deleted.
inline void unlink_partial_files() noexcept { detail::partial_files.unlink_all(); }

/// A file that appears under its name complete or not at all.
///
/// The bytes go to `<name>.partial-<process id>` in the directory of the target; commit() forces them to disk
/// and renames. Without commit() - an exception, say - the destructor deletes the partial file, and a signal handler
/// can with unlink_partial_files(), within the limits stated there. A previous file of that name stays until
/// commit() replaces it; a symbolic link is replaced, not followed. Every error is a FileError with the path
/// and the system's reason.
class AtomicFile {
 public:
  /// @throws FileError when the target exists and is no regular file or lies in /dev, or its directory cannot be
  /// written
  explicit AtomicFile(const std::filesystem::path& target) {
    std::error_code failure;
    target_ = std::filesystem::absolute(target, failure);  // a later chdir must not matter
    if (failure) throw FileError(concat(target.string(), ": cannot be written: ", failure.message()));
    const auto status = std::filesystem::status(target_, failure);
    // A link in /dev leads to a stream, which may be a regular file by chance: the link itself would be replaced.
    const auto directory = std::filesystem::weakly_canonical(target_.parent_path(), failure);
    if ((std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) || directory == "/dev")
      throw FileError(concat(target.string(), ": cannot be written: names no regular file"));
    if (!target_.has_filename()) throw FileError(concat("\"", target.string(), "\": cannot be written: names no file"));
    open_partial();
  }
  AtomicFile(AtomicFile&& other) noexcept
      : target_(std::move(other.target_)),
        partial_(std::move(other.partial_)),
        descriptor_(std::exchange(other.descriptor_, -1)),
        slot_(std::exchange(other.slot_, nullptr)) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() { discard(); }

  /// A whole text. @throws FileError
  static void write_text(const std::filesystem::path& target, std::string_view text) {
    AtomicFile file(target);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
  }

  const std::filesystem::path& target() const { return target_; }
  /// Where the bytes are until commit(), for a library that wants a name.
  const std::filesystem::path& partial() const { return partial_; }

  /// Appends all of `bytes`. @throws FileError
  void write(std::span<const std::byte> bytes) {
    if (const int error = try_write(bytes); error != 0) fail("cannot be written", error);
  }
  void write(const void* data, std::size_t bytes) { write({static_cast<const std::byte*>(data), bytes}); }

  /// Appends all of `bytes`; 0 or the errno of what failed. For callbacks of C libraries.
  [[nodiscard]] int try_write(std::span<const std::byte> bytes) noexcept {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return errno;
      if (written == 0) return ENOSPC;
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return 0;
  }

  /// Writes at a place of its own, in any order. @throws FileError
  void write_at(std::size_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("cannot be written", written < 0 ? errno : ENOSPC);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
      offset += static_cast<std::size_t>(written);
    }
  }

  /// Forces all bytes to disk, after which nothing can be written and commit() is left with the rename. For files that
  /// belong together: once all of them are flushed, a full disk cannot keep some of them from appearing.
  /// @throws FileError, after which the partial file is gone and the target is as it was
  void flush() {
    if (partial_.empty()) fail("cannot be flushed", EBADF);
    if (descriptor_ < 0) return;
    // Some file systems cannot flush and say so; that is no reason to lose the picture.
    if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != ENOTSUP) fail_and_discard("cannot be flushed");
    if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail_and_discard("cannot be closed");
  }

  /// Flushes to disk and gives the file its name; nothing can be written afterwards.
  /// @throws FileError, after which the partial file is gone and the target is as it was
  void commit() {
    flush();
    if (std::rename(partial_.c_str(), target_.c_str()) != 0) fail_and_discard("cannot be renamed into place");
    forget();
    flush_directory();
  }

 private:
  void open_partial() {
    const std::string name = target_.string() + ".partial-" + std::to_string(::getpid());
    // Numbered when two files of this process share a target, or a killed process of the same id left one.
    for (int attempt = 0; attempt < 100; ++attempt) {
      partial_ = attempt == 0 ? name : name + "-" + std::to_string(attempt);
      descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor_ >= 0) {
        slot_ = detail::partial_files.add(partial_.string());
        return;
      }
      if (errno != EEXIST) break;
    }
    fail("cannot be created", errno);
  }

  void forget() noexcept {
    detail::PartialFiles::forget(slot_);
    partial_.clear();
  }

  void discard() noexcept {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
    if (partial_.empty()) return;
    ::unlink(partial_.c_str());
    forget();
  }

  /// Makes the new name survive a power cut, where the file system can promise that.
  void flush_directory() const noexcept {
    const int directory = ::open(target_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return;
    ::fsync(directory);
    ::close(directory);
  }

  [[noreturn]] void fail(const char* what, int error) const {
    throw FileError(concat(target_.string(), ": ", what, ": ", std::generic_category().message(error)));
  }
  [[noreturn]] void fail_and_discard(const char* what) {
    const int error = errno;
    discard();
    fail(what, error);
  }

  std::filesystem::path target_;
  std::filesystem::path partial_;
  int descriptor_ = -1;
  detail::PartialFiles::Slot* slot_ = nullptr;
};

}  // namespace ebb
