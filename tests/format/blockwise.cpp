#include "ebb/format/blockwise.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "ebb/format/nf4.hpp"

using namespace ebb;

TEST_CASE("blockwise: sizes of a 3072 x 3072 linear layer") {
  const Shape shape{3072, 3072};
  const SegmentLayout plain = NF4::layout(shape, {});
  CHECK(plain.codes_bytes == 4718592);
  CHECK(plain.scales_bytes == 589824);
  CHECK(plain.nested_bytes == 0);
  CHECK(plain.stored_bytes() == 5308416);
  const SegmentLayout nested = NF4::layout(shape, {64, DoubleQuantization::on});
  CHECK(nested.codes_bytes == 4718592);
  CHECK(nested.scales_bytes == 147456);
  CHECK(nested.nested_bytes == 576 * 4 + 256 * 4 + 4);
}

TEST_CASE("blockwise: parts are aligned, disjoint and inside the segment") {
  for (const std::size_t elements : {0u, 1u, 63u, 64u, 65u, 3003u, 65537u})
    for (std::size_t size = 32; size <= 4096; size *= 2)
      for (const auto nested : {DoubleQuantization::off, DoubleQuantization::on}) {
        const SegmentLayout layout = NF4::layout(Shape{elements}, {size, nested});
        CAPTURE(elements);
        CHECK(layout.codes_offset == 0);
        CHECK(layout.scales_offset % part_alignment == 0);
        CHECK(layout.nested_offset % part_alignment == 0);
        CHECK(layout.bytes % segment_alignment == 0);
        CHECK(layout.codes_bytes <= layout.scales_offset);
        CHECK(layout.scales_offset + layout.scales_bytes <= layout.nested_offset);
        CHECK(layout.nested_offset + layout.nested_bytes <= layout.bytes);
        CHECK(layout.bytes < layout.stored_bytes() + 2 * part_alignment + segment_alignment);
      }
}

TEST_CASE("blockwise: only powers of two from 32 to 4096 are block sizes") {
  for (std::size_t size = 32; size <= 4096; size *= 2) CHECK_NOTHROW(check_block_size(size));
  for (const std::size_t size : {0u, 1u, 16u, 31u, 48u, 63u, 65u, 96u, 8192u})
    CHECK_THROWS_AS((NF4::layout(Shape{64}, {size, DoubleQuantization::off})), ConfigError);
  CHECK_THROWS_WITH_AS(check_block_size(63), "block size 63: expected one of 32, 64, 128, 256, 512, 1024, 2048, 4096",
                       ConfigError);
}

TEST_CASE("blockwise: sizes that overflow are refused") {
  constexpr std::size_t huge = std::numeric_limits<std::size_t>::max();
  CHECK_THROWS_AS(NF4::layout(Shape{huge, 2}, {}), ShapeError);
  CHECK_THROWS_AS(layout_of_parts(huge), ShapeError);
  CHECK_THROWS_AS(layout_of_parts(huge / 2 + 1, huge / 2), ShapeError);
}
