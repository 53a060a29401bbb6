#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/autoencoder_kl.hpp"
#include "common/phase.hpp"

namespace ebb::flux {

/// A dense float32 tensor [items, tokens, channels] that a user hands in or takes out.
struct Batch {
  std::size_t items = 0, tokens = 0, channels = 0;
  std::vector<float> values;
  bool empty() const { return values.empty(); }
};

/// One call of the pipeline.
struct Request {
  std::vector<std::string> prompts;    // one or more, or none with `embeds`
  std::vector<std::string> prompts_2;  // for T5; empty: the same as `prompts`
  std::vector<std::string> negative_prompts;
  double true_cfg = 1.0;
  std::size_t height = 1024, width = 1024;  // pixels
  std::size_t steps = 28;
  double guidance = 3.5;
  std::uint64_t seed = 0;
  std::size_t images_per_prompt = 1;
  std::size_t max_sequence_length = 512;
  examples::Slicing slicing = examples::Slicing::off;
  examples::Tiling tiling = examples::Tiling::off;
  Batch latents;         // packed noise; empty: drawn from the seed
  Batch embeds, pooled;  // T5 states [B, S, C] and CLIP's pooled output [B, 1, C]; empty: encoded from the prompts

  std::size_t prompt_count() const { return embeds.empty() ? prompts.size() : embeds.items; }
  std::size_t batch() const { return prompt_count() * images_per_prompt; }
  bool uses_cfg() const { return true_cfg > 1.0 && !negative_prompts.empty(); }
};

/// 8-bit RGB, row-major.
struct Picture {
  std::size_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

/// What came out.
struct Result : examples::Phases {
  Batch latents;  // packed, after the last step
  std::vector<Picture> pictures;
};

/// The largest difference of two results' pictures, in levels of 255.
inline int largest_difference(const Result& a, const Result& b) {
  int largest = 0;
  for (std::size_t picture = 0; picture < a.pictures.size(); ++picture)
    for (std::size_t i = 0; i < a.pictures[picture].rgb.size(); ++i)
      largest = std::max(largest, std::abs(int{a.pictures[picture].rgb[i]} - int{b.pictures[picture].rgb[i]}));
  return largest;
}

}  // namespace ebb::flux
