#include "ebb/format/packing.hpp"

#include <doctest/doctest.h>

#include "ebb/format/nf4.hpp"

TEST_CASE("packing: the first element lies in the high nibble") {
  CHECK(ebb::pack_nibbles(ebb::NF4::encode(1.0f, 1.0f), ebb::NF4::encode(-1.0f, 1.0f)) == 0xf0);
}

TEST_CASE("packing: pack and unpack are inverse for all bytes") {
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<std::uint8_t>(byte);
    CHECK(ebb::pack_nibbles(ebb::even_nibble(value), ebb::odd_nibble(value)) == value);
  }
}
