#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace ebb::testing {

/// The content of a safetensors file with this header, valid or not, and `data` zero bytes.
inline std::string safetensors_text(const std::string& header, std::size_t data) {
  const auto length = static_cast<std::uint64_t>(header.size());
  std::string text(sizeof(length), '\0');
  std::memcpy(text.data(), &length, sizeof(length));
  return text + header + std::string(data, '\0');
}

}  // namespace ebb::testing
