#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace ebb {

/// Fixed places for units that stream through a small region in a cyclic order.
struct Ring {
  std::vector<std::size_t> offsets;  // of each unit, multiples of `alignment`
  std::size_t bytes = 0;             // of the region
  bool wraps = false;                // the first units can arrive while the last ones still compute
  static constexpr std::size_t alignment = 256;
};

namespace detail {

inline std::size_t ring_aligned(std::size_t bytes) {
  return (bytes + Ring::alignment - 1) / Ring::alignment * Ring::alignment;
}

/// Unit i in slot i mod (lookahead + 1); a slot is as large as the largest unit that it serves.
inline Ring slot_ring(std::span<const std::size_t> bytes, std::size_t lookahead) {
  Ring ring;
  const std::size_t slots = std::min(lookahead + 1, bytes.size());
  std::vector<std::size_t> slot_bytes(slots), slot_offset(slots);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    slot_bytes[i % slots] = std::max(slot_bytes[i % slots], ring_aligned(bytes[i]));
  for (std::size_t slot = 0; slot < slots; ++slot)
    slot_offset[slot] = std::exchange(ring.bytes, ring.bytes + slot_bytes[slot]);
  for (std::size_t i = 0; i < bytes.size(); ++i) ring.offsets.push_back(slot_offset[i % slots]);
  return ring;
}

/// Each unit at the lowest offset that is free of the `lookahead` units before it and, when `wraps`, of those
/// after it in the next pass that already have a place.
inline Ring first_fit_ring(std::span<const std::size_t> bytes, std::size_t lookahead, bool wraps) {
  Ring ring;
  std::vector<std::pair<std::size_t, std::size_t>> taken;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    taken.clear();
    const auto take = [&](std::size_t j) {
      taken.emplace_back(ring.offsets[j], ring.offsets[j] + ring_aligned(bytes[j]));
    };
    for (std::size_t back = 1; back <= lookahead && back <= i; ++back) take(i - back);
    if (wraps)
      for (std::size_t next = 0; next < i && next + bytes.size() - i <= lookahead; ++next) take(next);
    std::ranges::sort(taken);
    std::size_t offset = 0;
    for (const auto& [begin, end] : taken) {
      if (offset + ring_aligned(bytes[i]) <= begin) break;
      offset = std::max(offset, end);
    }
    ring.offsets.push_back(offset);
    ring.bytes = std::max(ring.bytes, offset + ring_aligned(bytes[i]));
  }
  return ring;
}

/// Whether each unit is apart from the `lookahead` units that follow it, those of the next pass included.
inline bool ring_wraps(const Ring& ring, std::span<const std::size_t> bytes, std::size_t lookahead) {
  const std::size_t count = bytes.size();
  for (std::size_t i = count - std::min(lookahead, count); i < count; ++i)
    for (std::size_t ahead = 1; ahead <= lookahead && ahead < count; ++ahead) {
      const std::size_t j = (i + ahead) % count;
      if (ring.offsets[i] < ring.offsets[j] + bytes[j] && ring.offsets[j] < ring.offsets[i] + bytes[i]) return false;
    }
  return true;
}

}  // namespace detail

/// Places units of `bytes` (none of them empty) so that any `lookahead` + 1 consecutive ones are disjoint, also
/// across the end of a pass where that fits in `limit_bytes`. Never larger than (lookahead + 1) x the largest unit
/// when `limit_bytes` is at most that; of what fits, the smallest. A pure function.
inline Ring make_ring(std::span<const std::size_t> bytes, std::size_t lookahead, std::size_t limit_bytes) {
  Ring candidates[] = {detail::slot_ring(bytes, lookahead), detail::first_fit_ring(bytes, lookahead, false),
                       detail::first_fit_ring(bytes, lookahead, true)};
  Ring* best = nullptr;
  for (Ring& ring : candidates) {
    ring.wraps = detail::ring_wraps(ring, bytes, lookahead);
    if (!best) {
      best = &ring;
      continue;
    }
    const bool fits = ring.bytes <= limit_bytes, best_fits = best->bytes <= limit_bytes;
    if (fits && best_fits && ring.wraps != best->wraps) {
      if (ring.wraps) best = &ring;
    } else if (ring.bytes < best->bytes) {
      best = &ring;
    }
  }
  return std::move(*best);
}

}  // namespace ebb
