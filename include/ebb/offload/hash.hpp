#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace ebb {

/// A 64-bit hash of bytes: finds damage and tells contents apart at memory speed. It does not resist an attacker.
///
/// With a = 0x9e3779b97f4a7c15 and b = 0xd6e8feb86659fd93, all arithmetic modulo 2^64: four lanes begin as
/// seed + (k + 1) a. The bytes, followed by zeros up to a multiple of 32, are read as little-endian 64-bit words; word
/// i updates lane k = i mod 4 to rotate_left(lane + word * b, 31) * a. The result begins as count * a; for each lane in
/// turn it becomes (result ^ lane) * b and then result ^ (result >> 32).
inline std::uint64_t hash64(std::span<const std::byte> bytes, std::uint64_t seed = 0) {
  static_assert(std::endian::native == std::endian::little, "words are little-endian");
  constexpr std::uint64_t a = 0x9e3779b97f4a7c15, b = 0xd6e8feb86659fd93;
  std::array<std::uint64_t, 4> lanes{seed + a, seed + 2 * a, seed + 3 * a, seed + 4 * a};
  std::array<std::uint64_t, 4> words{};
  const auto update = [&] {
    for (std::size_t k = 0; k < 4; ++k) lanes[k] = std::rotl(lanes[k] + words[k] * b, 31) * a;
  };
  std::size_t done = 0;
  for (; bytes.size() - done >= sizeof(words); done += sizeof(words)) {
    std::memcpy(words.data(), bytes.data() + done, sizeof(words));
    update();
  }
  if (done < bytes.size()) {
    words = {};
    std::memcpy(words.data(), bytes.data() + done, bytes.size() - done);
    update();
  }
  std::uint64_t result = bytes.size() * a;
  for (const std::uint64_t lane : lanes) {
    result = (result ^ lane) * b;
    result ^= result >> 32;
  }
  return result;
}

inline std::uint64_t hash64(std::string_view text, std::uint64_t seed = 0) {
  return hash64(std::as_bytes(std::span(text.data(), text.size())), seed);
}

}  // namespace ebb
