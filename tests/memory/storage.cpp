#include "ebb/memory/storage.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

using ebb::AlignedBuffer;

static_assert(!std::is_copy_constructible_v<AlignedBuffer> && std::is_nothrow_move_constructible_v<AlignedBuffer>);

TEST_CASE("an aligned buffer has its size, and a moved-from one is empty") {
  CHECK(AlignedBuffer(0).bytes().empty());
  AlignedBuffer first(1000);
  CHECK(reinterpret_cast<std::uintptr_t>(first.data()) % AlignedBuffer::alignment == 0);
  const std::byte* address = first.data();
  AlignedBuffer second(std::move(first));
  CHECK(first.size() == 0);
  CHECK(first.data() == nullptr);
  CHECK(second.size() == 1000);
  CHECK(second.data() == address);
  first = std::move(second);
  CHECK(second.bytes().empty());
  CHECK(first.bytes().size() == 1000);
  CHECK(first.data() == address);
}

TEST_CASE("more memory than there is, with the bytes that were asked for") {
  CHECK_THROWS_WITH_AS(AlignedBuffer(~std::size_t{0}), doctest::Contains("18446744073709551615 bytes"),
                       ebb::MemoryError);
}
