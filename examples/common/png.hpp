#pragma once

#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/core/view.hpp"
#include "ebb/io/atomic_file.hpp"

namespace ebb::examples {

/// Key and value of one text entry of a PNG file, both UTF-8.
using PngText = std::pair<std::string, std::string>;

/// A picture read from a file: `pixels` has 3 bytes (red, green, blue) a pixel, rows from the top.
struct PngPicture {
  std::size_t width = 0;
  std::size_t height = 0;
  std::vector<std::uint8_t> pixels;
  std::vector<PngText> text;

  Image<const std::uint8_t> view() const { return {pixels.data(), 1, height, width, 3}; }
};

namespace detail {

// libpng reports an error by longjmp, which skips destructors. So the functions below that call setjmp, and
// the callbacks that libpng calls, hold nothing with a destructor: they work on memory that their callers
// own, keep what must survive the jump outside of themselves, and their callers throw after libpng has
// returned.

/// What went wrong, kept where a jump does not reach it.
struct PngFailure {
  std::array<char, 200> message{};
  int error = 0;  // errno of a failed write
};

[[noreturn]] inline void png_failed(png_structp png, png_const_charp message) {
  auto* failure = static_cast<PngFailure*>(png_get_error_ptr(png));
  std::snprintf(failure->message.data(), failure->message.size(), "%s", message);
  png_longjmp(png, 1);
}

inline void png_warned(png_structp, png_const_charp) {}

/// Owns libpng's two structures.
struct PngHandles {
  enum class Mode { read, write };

  PngHandles(Mode mode, PngFailure& failure) : mode_(mode) {
    png = mode == Mode::read ? png_create_read_struct(PNG_LIBPNG_VER_STRING, &failure, png_failed, png_warned)
                             : png_create_write_struct(PNG_LIBPNG_VER_STRING, &failure, png_failed, png_warned);
    if (png != nullptr) info = png_create_info_struct(png);
    if (info == nullptr) {
      release();
      throw MemoryError("libpng cannot be initialised: out of memory, or another version than the one built with");
    }
  }
  PngHandles(const PngHandles&) = delete;
  PngHandles& operator=(const PngHandles&) = delete;
  ~PngHandles() { release(); }

  png_structp png = nullptr;
  png_infop info = nullptr;

 private:
  void release() {
    if (mode_ == Mode::read)
      png_destroy_read_struct(&png, &info, nullptr);
    else
      png_destroy_write_struct(&png, &info);
  }
  Mode mode_;
};

struct PngSink {
  AtomicFile* file;
  PngFailure* failure;
};

inline void png_write_bytes(png_structp png, png_bytep data, png_size_t bytes) {
  auto* sink = static_cast<PngSink*>(png_get_io_ptr(png));
  sink->failure->error = sink->file->try_write({reinterpret_cast<const std::byte*>(data), bytes});
  if (sink->failure->error != 0) png_error(png, "write error");
}

inline bool png_encode(png_structp png, png_infop info, PngSink* sink, Image<const std::uint8_t> picture,
                       std::span<png_text> text) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_write_fn(png, sink, png_write_bytes, nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(picture.width), static_cast<png_uint_32>(picture.height), 8,
               PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
  if (!text.empty()) png_set_text(png, info, text.data(), static_cast<int>(text.size()));
  png_write_info(png, info);
  for (std::size_t y = 0; y < picture.height; ++y) png_write_row(png, &picture(0, y, 0, 0));
  png_write_end(png, info);
  return true;
}

struct PngSource {
  std::span<const std::uint8_t> left;
};

inline void png_read_bytes(png_structp png, png_bytep data, png_size_t bytes) {
  auto* source = static_cast<PngSource*>(png_get_io_ptr(png));
  if (bytes > source->left.size()) png_error(png, "the file ends too early");
  std::memcpy(data, source->left.data(), bytes);
  source->left = source->left.subspan(bytes);
}

struct PngHeader {
  png_uint_32 width = 0;
  png_uint_32 height = 0;
  int passes = 0;
  std::size_t row_bytes = 0;
};

inline constexpr png_uint_32 png_maximum_side = 16384;
inline constexpr std::size_t png_maximum_pixels = std::size_t{1} << 26;
inline constexpr std::size_t png_maximum_text_bytes = std::size_t{1} << 24;

inline bool png_decode_header(png_structp png, png_infop info, PngSource* source, PngHeader* header) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_read_fn(png, source, png_read_bytes);
  png_set_user_limits(png, png_maximum_side, png_maximum_side);
  png_set_chunk_malloc_max(png, png_maximum_text_bytes);
  png_set_chunk_cache_max(png, 64);
  png_read_info(png, info);
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  png_set_gray_to_rgb(png);
  header->passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  header->width = png_get_image_width(png, info);
  header->height = png_get_image_height(png, info);
  header->row_bytes = png_get_rowbytes(png, info);
  return true;
}

inline bool png_decode_rows(png_structp png, png_infop info, const PngHeader* header, std::uint8_t* pixels) {
  if (setjmp(png_jmpbuf(png))) return false;
  for (int pass = 0; pass < header->passes; ++pass)
    for (png_uint_32 y = 0; y < header->height; ++y) png_read_row(png, pixels + y * header->row_bytes, nullptr);
  png_read_end(png, info);
  return true;
}

/// Whether every chunk up to IEND has the bytes that its length promises. libpng allocates a chunk before it reads it,
/// and its limits only warn of a long one.
inline bool png_chunks_fit(std::span<const std::uint8_t> bytes) {
  constexpr std::size_t signature = 8, around = 12;  // length and type before the data, a checksum behind them
  for (auto left = bytes.subspan(std::min(bytes.size(), signature)); left.size() >= around;) {
    const std::size_t length = std::size_t{left[0]} << 24 | left[1] << 16 | left[2] << 8 | left[3];
    if (length > left.size() - around) return false;
    if (std::memcmp(&left[4], "IEND", 4) == 0) return true;
    left = left.subspan(around + length);
  }
  return true;  // libpng says what is missing
}

inline bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// What the PNG standard asks of a key, ASCII only.
inline void check_png_key(const std::string& key) {
  const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (key.empty() || key.size() > 79 || !printable || key.front() == ' ' || key.back() == ' ' ||
      key.find("  ") != std::string::npos)
    throw ConfigError(concat("PNG text key \"", key, "\": expected 1 to 79 printable ASCII characters, no space at ",
                             "either end and no two together"));
}

/// ASCII values become tEXt, others iTXt (UTF-8); neither is compressed. Pointers into `text`.
inline std::vector<png_text> png_entries(std::span<const PngText> text) {
  std::vector<png_text> entries;
  for (const auto& [key, value] : text) {
    check_png_key(key);
    if (value.find('\0') != std::string::npos)
      throw ConfigError(concat("PNG text \"", key, "\": contains a NUL character, which PNG cannot store"));
    png_text entry{};
    entry.compression = is_ascii(value) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    entry.key = const_cast<png_charp>(key.c_str());  // libpng copies, but takes no const
    entry.text = const_cast<png_charp>(value.c_str());
    entries.push_back(entry);
  }
  return entries;
}

inline std::vector<std::uint8_t> png_file_bytes(const std::filesystem::path& path) {
  constexpr std::uintmax_t maximum = std::uintmax_t{256} << 20;
  std::error_code failure;
  const auto size = std::filesystem::file_size(path, failure);
  if (failure) throw FileError(concat(path.string(), ": cannot be read: ", failure.message()));
  if (size > maximum) throw FileError(concat(path.string(), ": larger than 256 MiB, no picture of this program"));
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size())))
    throw FileError(concat(path.string(), ": cannot be read"));
  return bytes;
}

}  // namespace detail

/// Writes one picture, 8 bits a channel, sRGB. `picture` is [1, height, width, 3]. `text` entries keep their
/// order; programs look for the key "parameters". The file appears complete or not at all (AtomicFile).
/// @throws ShapeError for any other shape or an empty picture, ConfigError for text that PNG cannot store,
///   FileError when the file cannot be written
inline void write_png(const std::filesystem::path& path, Image<const std::uint8_t> picture,
                      std::span<const PngText> text = {}) {
  if (picture.batch != 1 || picture.channels != 3 || picture.height < 1 || picture.width < 1 ||
      picture.height > detail::png_maximum_side || picture.width > detail::png_maximum_side)
    throw ShapeError(concat(path.string(), ": expected a picture [1, height, width, 3] with sides from 1 to ",
                            detail::png_maximum_side, ", found [", picture.batch, ", ", picture.height, ", ",
                            picture.width, ", ", picture.channels, "]"));
  auto entries = detail::png_entries(text);
  AtomicFile file(path);
  detail::PngFailure failure;
  detail::PngSink sink{&file, &failure};
  {
    const detail::PngHandles handles(detail::PngHandles::Mode::write, failure);
    if (!detail::png_encode(handles.png, handles.info, &sink, picture, entries))
      throw FileError(concat(
          path.string(), ": cannot be written: ",
          failure.error != 0 ? std::generic_category().message(failure.error) : std::string(failure.message.data())));
  }
  file.commit();
}

/// Reads a PNG file of any kind as 8-bit RGB; an alpha channel is dropped. Refuses sides above 16384, more
/// than 64 Mi pixels and files above 256 MiB before it allocates for them. @throws FileError
inline PngPicture read_png(const std::filesystem::path& path) {
  const std::vector<std::uint8_t> bytes = detail::png_file_bytes(path);
  detail::PngSource source{bytes};
  detail::PngFailure failure;
  const auto fail = [&](const std::string& why) { throw FileError(concat(path.string(), ": no valid PNG: ", why)); };
  if (png_sig_cmp(bytes.data(), 0, bytes.size()) == 0 && !detail::png_chunks_fit(bytes))
    fail("a chunk is longer than the file");
  const detail::PngHandles handles(detail::PngHandles::Mode::read, failure);
  detail::PngHeader header;
  if (!detail::png_decode_header(handles.png, handles.info, &source, &header)) fail(failure.message.data());
  if (header.row_bytes != std::size_t{3} * header.width) fail("its pixels cannot be converted to 8-bit RGB");
  if (std::size_t{header.width} * header.height > detail::png_maximum_pixels)
    fail(concat(header.width, " x ", header.height, " pixels are more than 64 Mi"));
  PngPicture picture{.width = header.width, .height = header.height, .pixels = {}, .text = {}};
  picture.pixels.resize(header.row_bytes * header.height);
  if (!detail::png_decode_rows(handles.png, handles.info, &header, picture.pixels.data())) fail(failure.message.data());
  png_textp entries = nullptr;
  int count = 0;
  png_get_text(handles.png, handles.info, &entries, &count);
  for (const png_text& entry : std::span(entries, static_cast<std::size_t>(std::max(count, 0))))
    picture.text.emplace_back(entry.key, entry.text == nullptr ? "" : entry.text);
  return picture;
}

}  // namespace ebb::examples
