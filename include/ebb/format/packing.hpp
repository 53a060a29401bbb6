#pragma once

#include <cstddef>
#include <cstdint>

#include "ebb/core/config.hpp"

namespace ebb {

/// Two 4-bit codes in a byte: the element with the even index lies in the HIGH nibble (the order of
/// bitsandbytes). With an odd number of elements the last low nibble holds the code of an implicit zero.
EBB_HOST_DEVICE constexpr std::uint8_t pack_nibbles(std::uint8_t even, std::uint8_t odd) {
  return static_cast<std::uint8_t>((even & 0xfu) << 4 | (odd & 0xfu));
}

/// The code of element 2j of byte j.
EBB_HOST_DEVICE constexpr std::uint8_t even_nibble(std::uint8_t byte) { return static_cast<std::uint8_t>(byte >> 4); }

/// The code of element 2j + 1 of byte j.
EBB_HOST_DEVICE constexpr std::uint8_t odd_nibble(std::uint8_t byte) { return static_cast<std::uint8_t>(byte & 0xfu); }

/// Bytes that `elements` 4-bit codes occupy.
EBB_HOST_DEVICE constexpr std::size_t packed_bytes(std::size_t elements) { return elements / 2 + elements % 2; }

static_assert(pack_nibbles(0xf, 0x0) == 0xf0 && even_nibble(0xa5) == 0xa && odd_nibble(0xa5) == 0x5);
static_assert(packed_bytes(0) == 0 && packed_bytes(1) == 1 && packed_bytes(2) == 1 && packed_bytes(3) == 2);

}  // namespace ebb
