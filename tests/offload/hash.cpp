#include "ebb/offload/hash.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

namespace {

/// The definition, word for word and byte by byte.
std::uint64_t simple(const std::vector<unsigned char>& bytes, std::uint64_t seed) {
  const std::uint64_t a = 0x9e3779b97f4a7c15u, b = 0xd6e8feb86659fd93u;
  std::vector<unsigned char> padded = bytes;
  while (padded.size() % 32 != 0) padded.push_back(0);
  std::uint64_t lane[4];
  for (unsigned k = 0; k < 4; ++k) lane[k] = seed + (k + 1) * a;
  for (std::size_t i = 0; i < padded.size() / 8; ++i) {
    std::uint64_t word = 0;
    for (unsigned byte = 0; byte < 8; ++byte) word += std::uint64_t{padded[8 * i + byte]} << (8 * byte);
    const std::uint64_t mixed = lane[i % 4] + word * b;
    lane[i % 4] = ((mixed << 31) | (mixed >> 33)) * a;
  }
  std::uint64_t result = bytes.size() * a;
  for (const std::uint64_t each : lane) {
    result = (result ^ each) * b;
    result ^= result >> 32;
  }
  return result;
}

}  // namespace

TEST_CASE("hash64 equals its definition for all lengths around a stripe") {
  for (const std::uint64_t seed : {0ull, 1ull, 0xffffffffffffffffull})
    for (std::size_t size = 0; size < 200; ++size) {
      std::vector<unsigned char> bytes;
      for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<unsigned char>(i * 37 + size));
      CHECK(ebb::hash64(std::as_bytes(std::span(bytes)), seed) == simple(bytes, seed));
    }
}

TEST_CASE("hash64 tells single bits, lengths and seeds apart") {
  std::set<std::uint64_t> seen;
  std::string text(100, '\0');
  for (std::size_t length = 0; length < text.size(); ++length)
    seen.insert(ebb::hash64(std::string_view(text).substr(0, length)));
  for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string changed = text;
    changed[bit / 8] = static_cast<char>(1 << (bit % 8));
    seen.insert(ebb::hash64(changed));
  }
  seen.insert(ebb::hash64("a", 1));
  seen.insert(ebb::hash64("a", 2));
  CHECK(seen.size() == 100 + 800 + 2);
}
