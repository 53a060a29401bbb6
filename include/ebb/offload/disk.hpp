#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "ebb/core/error.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/mapped_file.hpp"
#include "ebb/offload/hash.hpp"

namespace ebb {

/// What a home file must hold to be used.
struct HomeFileKey {
  std::string component;
  std::uint64_t layout_hash = 0;  // of names, formats and offsets
  std::uint64_t source_hash = 0;  // of the checkpoint and the options that the bytes were made from
  std::size_t bytes = 0;          // of the home arena
};

/// A component's home arena as a file: what a transfer reads when weights do not fit in RAM. Mapped read-only; pages
/// come and go with use. POSIX.
///
/// The file is a header of 4096 bytes and the arena's bytes. The header begins with little-endian 64-bit words:
/// "EBBHOME", version, layout hash, source hash, bytes, hash64 of the bytes, hash64 of these six words.
class HomeFile {
 public:
  static constexpr std::size_t header_bytes = 4096;
  /// How this object came by its contents. Files that are stale, truncated or damaged are made again.
  enum class Origin { reused, created, replaced };

  /// Where `open_or_create` keeps the arena: the name has the component and what its contents depend on.
  static std::filesystem::path path_of(const std::filesystem::path& directory, const HomeFileKey& key) {
    std::string name;
    for (const char letter : key.component) {
      const bool plain = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                         (letter >= '0' && letter <= '9') || letter == '_';
      name += plain ? letter : '_';
    }
    const std::uint64_t hash = hash64(key.component, key.layout_hash ^ std::rotl(key.source_hash, 32));
    name += '-';
    for (int shift = 60; shift >= 0; shift -= 4) name += "0123456789abcdef"[(hash >> shift) & 15];
    return directory / (name + ".ebbhome");
  }

  /// Opens and verifies; reads the whole file once.
  /// @throws FileError, each with its own words: missing, not a home file, another version, made from another source
  ///         or for another layout, truncated, damaged
  static HomeFile open(const std::filesystem::path& path, const HomeFileKey& key) {
    HomeFile file;
    file.path_ = path;
    file.mapped_ = MappedFile::open(path);
    const auto fail = [&](const auto&... what) { return FileError(concat(path.string(), ": ", what...)); };
    if (file.mapped_.size() < header_bytes)
      throw fail("the file is truncated: its header has ", header_bytes, " bytes, found ", file.mapped_.size());
    Words words;
    std::memcpy(words.data(), file.mapped_.bytes().data(), sizeof(words));
    if (words[0] != magic) throw fail("this is not a home file of an offloaded component");
    if (words[1] != version) throw fail("expected version ", version, " of the home file format, found ", words[1]);
    if (words[6] != header_hash(words)) throw fail("the header is damaged: its hash does not match");
    if (words[2] != key.layout_hash || words[4] != key.bytes)
      throw fail("the file was written for another layout of ", key.component, " (", words[4], " bytes, expected ",
                 key.bytes, ")");
    if (words[3] != key.source_hash) throw fail("the file was made from another checkpoint or with other options");
    if (file.mapped_.size() - header_bytes != key.bytes)
      throw fail("the file is truncated: expected ", key.bytes, " bytes after the header, found ",
                 file.mapped_.size() - header_bytes);
    file.mapped_.advise(FileAccess::sequential);
    if (hash64(file.bytes()) != words[5]) throw fail("the weights are damaged: their hash does not match");
    file.mapped_.advise(FileAccess::random);  // from here on transfers read units, each of them whole
    return file;
  }

  /// The arena of `key` in `directory`: the file that is there, if it is whole and was made from the same source, or a
  /// new one whose bytes `fill(std::span<std::byte>)` writes, all of them. It appears under its name only when it is
  /// complete and on the disk; on failure nothing is left behind, and unlink_partial_files() deletes it until then.
  /// @throws FileError when the directory cannot be written or the disk is full; what `fill` throws
  template <std::invocable<std::span<std::byte>> Fill>
  static HomeFile open_or_create(const std::filesystem::path& directory, const HomeFileKey& key, Fill&& fill) {
    const std::filesystem::path path = path_of(directory, key);
    Origin origin = Origin::created;
    std::string reason;
    std::error_code status;
    if (std::filesystem::exists(path, status)) {
      try {
        return open(path, key);
      } catch (const FileError& error) {
        origin = Origin::replaced;
        reason = error.what();
      }
    }
    create(directory, path, key, fill);
    HomeFile file;
    file.path_ = path;
    file.mapped_ = MappedFile::open(path);
    file.origin_ = origin;
    file.reason_ = std::move(reason);
    file.mapped_.advise(FileAccess::random);
    return file;
  }

  /// The home arena, 256-byte aligned; valid as long as this object, or the one that it was moved to, lives.
  std::span<const std::byte> bytes() const { return mapped_.bytes().subspan(header_bytes); }
  const std::filesystem::path& path() const { return path_; }
  Origin origin() const { return origin_; }
  /// Why a file that was there was replaced; empty when none was.
  const std::string& reason() const { return reason_; }

 private:
  using Words = std::array<std::uint64_t, 7>;
  static constexpr std::uint64_t magic = 0x00454d4f48424245;  // "EBBHOME"
  static constexpr std::uint64_t version = 1;

  HomeFile() = default;

  static std::uint64_t header_hash(const Words& words) { return hash64(std::as_bytes(std::span(words).first(6))); }

  /// A file under a temporary name, mapped for writing, that disappears unless it is committed.
  class Draft {
   public:
    Draft(const std::filesystem::path& directory, const std::filesystem::path& path, std::size_t bytes)
        : path_(path.string()), name_(path_ + ".partial.XXXXXX"), bytes_(bytes) {
      std::error_code status;
      std::filesystem::create_directories(directory, status);
      if (status) throw FileError(concat(directory.string(), ": cannot create the directory: ", status.message()));
      descriptor_ = ::mkostemp(name_.data(), O_CLOEXEC);
      if (descriptor_ < 0)
        throw FileError(
            concat(directory.string(), ": cannot write to the directory for offloaded weights: ", system_text(errno)));
      try {
        slot_ = detail::partial_files.add(std::filesystem::absolute(name_, status).string());
        allocate(directory);
      } catch (...) {
        discard();
        throw;
      }
    }
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;
    ~Draft() { discard(); }

    std::byte* data() { return data_; }

    void commit(const std::filesystem::path& directory) {
      if (::msync(data_, bytes_, MS_SYNC) != 0 || ::fsync(descriptor_) != 0)
        throw FileError(concat(path_, ": cannot write the weights to the disk: ", system_text(errno)));
      if (::rename(name_.c_str(), path_.c_str()) != 0)
        throw FileError(concat(path_, ": cannot rename the finished file: ", system_text(errno)));
      committed_ = true;
      detail::PartialFiles::forget(slot_);
      const int parent = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (parent >= 0) {  // makes the name durable; the contents already are
        ::fsync(parent);
        ::close(parent);
      }
    }

   private:
    /// Reserves the blocks, so that a full disk is an error here and not a fault while the weights are written.
    void allocate(const std::filesystem::path& directory) {
      int code = 0;
      do code = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes_));
      while (code == EINTR);
      if (code != 0) {
        std::error_code status;
        const auto space = std::filesystem::space(directory, status);
        throw FileError(concat(path_, ": the disk cannot take ", bytes_, " bytes of offloaded weights",
                               status ? std::string() : concat(" (", space.available, " are free)"), ": ",
                               system_text(code), "; choose another directory or a smaller format"));
      }
      void* address = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
      if (address == MAP_FAILED)
        throw FileError(concat(path_, ": cannot map ", bytes_, " bytes: ", system_text(errno)));
      data_ = static_cast<std::byte*>(address);
    }
    void discard() noexcept {
      if (data_ != nullptr) ::munmap(data_, bytes_);
      if (descriptor_ >= 0) ::close(descriptor_);
      if (descriptor_ >= 0 && !committed_) ::unlink(name_.c_str());
      detail::PartialFiles::forget(slot_);
      data_ = nullptr;
      descriptor_ = -1;
    }
    static std::string system_text(int code) { return std::generic_category().message(code); }

    std::string path_;
    std::string name_;
    std::size_t bytes_;
    int descriptor_ = -1;
    std::byte* data_ = nullptr;
    bool committed_ = false;
    detail::PartialFiles::Slot* slot_ = nullptr;
  };

  template <class Fill>
  static void create(const std::filesystem::path& directory, const std::filesystem::path& path, const HomeFileKey& key,
                     Fill& fill) {
    if (key.bytes > static_cast<std::size_t>(std::numeric_limits<off_t>::max()) - header_bytes)
      throw FileError(concat(path.string(), ": ", key.bytes, " bytes are more than a file can hold"));
    Draft draft(directory, path, header_bytes + key.bytes);
    const std::span<std::byte> payload(draft.data() + header_bytes, key.bytes);
    fill(payload);
    Words words{magic, version, key.layout_hash, key.source_hash, key.bytes, hash64(payload), 0};
    words[6] = header_hash(words);
    std::memcpy(draft.data(), words.data(), sizeof(words));
    draft.commit(directory);
  }

  std::filesystem::path path_;
  MappedFile mapped_;
  Origin origin_ = Origin::reused;
  std::string reason_;
};

}  // namespace ebb
