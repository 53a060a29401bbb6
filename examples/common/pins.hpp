#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/weights.hpp"
#include "ebb/core/error.hpp"
#include "ebb/cuda/resource.hpp"

namespace ebb::examples {

/// The home memory of some weights, pinned component by component as far as a budget and the system let it. It must be
/// gone before the weights are.
class Pins {
 public:
  Pins(const Weights& weights, std::size_t budget) {
    for (const Weights::Home& home : weights.homes()) {
      const std::size_t bytes = home.outline.end;
      const std::string weights_of = concat(home.outline.name, ": its ", bytes, " bytes of weights are not pinned, ");
      const char* effect = ": transfers are slower and do not overlap; ";
      if (bytes > budget) {
        unpinned_.push_back(home.outline.name);
        warnings_.push_back(concat(weights_of, "the budget has ", budget, " bytes left", effect, "raise --pin-budget"));
        continue;
      }
      cuda::PinnedRegion region(std::span(home.bytes, bytes));
      if (region.status() != cudaSuccess) {
        unpinned_.push_back(home.outline.name);
        warnings_.push_back(concat(weights_of, "the system refused (", cudaGetErrorName(region.status()), ": ",
                                   cudaGetErrorString(region.status()), ")", effect,
                                   "raise ulimit -l, free memory, or use --offload-to-disk"));
        continue;
      }
      budget -= bytes;
      regions_.push_back(std::move(region));
    }
  }

  /// Whether all of a component's weights are pinned.
  bool holds(std::string_view component) const { return std::ranges::find(unpinned_, component) == unpinned_.end(); }
  /// One sentence for each component that is not pinned: why, and what to do.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  std::vector<cuda::PinnedRegion> regions_;
  std::vector<std::string> unpinned_;
  std::vector<std::string> warnings_;
};

}  // namespace ebb::examples
