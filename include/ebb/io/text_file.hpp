#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include "ebb/core/error.hpp"

namespace ebb {

/// Configurations, indices and vocabularies stay below this.
inline constexpr std::size_t most_text_bytes = std::size_t{64} << 20;

/// The bytes of a small file, of at most `max_bytes`. `expected` says for the message what they should be: "JSON".
/// @throws FileError
inline std::string read_text(const std::filesystem::path& path, std::size_t max_bytes, std::string_view expected) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) throw FileError(concat(path.string(), ": cannot open the file: ", error.message()));
  const auto too_large = [&](std::uintmax_t found) {
    throw FileError(concat(path.string(), ": expected ", expected, " of at most ", max_bytes, " bytes, found ", found));
  };
  if (size > max_bytes) too_large(size);
  std::ifstream stream(path, std::ios::binary);
  std::string text;
  std::array<char, 4096> piece;
  // Not with istreambuf_iterator, whose errors are exceptions of the standard library.
  while (stream.read(piece.data(), piece.size()), stream.gcount() > 0) {
    text.append(piece.data(), static_cast<std::size_t>(stream.gcount()));
    if (text.size() > max_bytes) too_large(text.size());  // more than its size: it grows, or is no regular file
  }
  if (!stream.eof()) throw FileError(concat(path.string(), ": cannot read the file"));
  return text;
}

}  // namespace ebb
