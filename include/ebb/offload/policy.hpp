#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "ebb/core/error.hpp"
#include "ebb/module/level.hpp"

namespace ebb {

/// What a policy decides. Everything else follows from the units and their bytes.
struct OffloadSettings {
  Level level = Level::none;        // how finely components are cut into units
  std::size_t blocks_per_unit = 1;  // block level only
  std::size_t lookahead = 0;        // units in flight or waiting beside the one that computes; 0: no overlap
  std::optional<std::size_t> budget_bytes = {};  // device bytes for weights; none: as few as the level needs
  bool operator==(const OffloadSettings&) const = default;
};

template <class Policy>
concept OffloadPolicy = std::copyable<Policy> && requires(const Policy& policy) {
  { policy.settings() } -> std::same_as<OffloadSettings>;
  { policy.text() } -> std::same_as<std::string>;
};

namespace detail {

struct ByteUnit {
  std::string_view suffix;
  std::size_t bytes;
};
inline constexpr ByteUnit byte_units[] = {
    {"", 1},
    {"K", 1'000},
    {"M", 1'000'000},
    {"G", 1'000'000'000},
    {"KiB", 1ULL << 10},
    {"MiB", 1ULL << 20},
    {"GiB", 1ULL << 30},
    {"KB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"B", 1},
};

/// The shortest exact spelling: "3G", "512MiB", "1000001".
inline std::string byte_text(std::size_t bytes) {
  std::string best = std::to_string(bytes);
  for (const ByteUnit& unit : byte_units) {
    if (bytes == 0 || bytes % unit.bytes != 0) continue;
    std::string text = std::to_string(bytes / unit.bytes) + std::string(unit.suffix);
    if (text.size() <= best.size()) best = std::move(text);
  }
  return best;
}

}  // namespace detail

/// "1500000000", "1.5G", "512MiB": K, M, G (also with B) are powers of 1000, KiB, MiB, GiB of 1024.
/// @throws ConfigError that lists the suffixes
inline std::size_t parse_bytes(std::string_view text) {
  const auto fail = [&](std::string_view why) -> ConfigError {
    return ConfigError(concat("'", text, "' is not a number of bytes: ", why,
                              "; write a number with an optional suffix K, M, G, KiB, MiB or GiB, e.g. 6G"));
  };
  // Exact in integers: the fraction's digits are scaled by the unit, so 1.5G is 1500000000.
  std::size_t used = 0, whole = 0, fraction = 0, scale = 1;
  bool point = false, digits = false;
  for (; used < text.size(); ++used) {
    const char letter = text[used];
    if (letter == '.' && !point) {
      point = true;
      continue;
    }
    if (letter < '0' || letter > '9') break;
    digits = true;
    const auto digit = static_cast<std::size_t>(letter - '0');
    if (point) {
      if (scale > 1'000'000'000) throw fail("too many digits after the point");
      fraction = fraction * 10 + digit;
      scale *= 10;
    } else {
      if (whole > (std::numeric_limits<std::size_t>::max() - digit) / 10) throw fail("it is too large");
      whole = whole * 10 + digit;
    }
  }
  if (!digits) throw fail("it does not begin with a digit");
  for (const detail::ByteUnit& unit : detail::byte_units) {
    if (text.substr(used) != unit.suffix) continue;
    const std::size_t part = static_cast<std::size_t>(
        static_cast<double>(fraction) / static_cast<double>(scale) * static_cast<double>(unit.bytes) + 0.5);
    if (whole > (std::numeric_limits<std::size_t>::max() - part) / unit.bytes) throw fail("it is too large");
    return whole * unit.bytes + part;
  }
  throw fail(concat("there is no suffix '", text.substr(used), "'"));
}

/// Everything stays on the device.
struct NoOffload {
  constexpr OffloadSettings settings() const { return {.level = Level::none}; }
  std::string text() const { return "none"; }
  bool operator==(const NoOffload&) const = default;
};
/// One component at a time is on the device; entering the next one evicts it.
struct ModelOffload {
  constexpr OffloadSettings settings() const { return {.level = Level::model}; }
  std::string text() const { return "model"; }
  bool operator==(const ModelOffload&) const = default;
};
/// Runs of transformer blocks stream through the device.
struct BlockOffload {
  std::size_t blocks_per_unit = 1;
  std::size_t lookahead = 1;
  constexpr OffloadSettings settings() const {
    return {.level = Level::block, .blocks_per_unit = blocks_per_unit, .lookahead = lookahead};
  }
  std::string text() const { return blocks_per_unit == 1 ? "block" : "block:" + std::to_string(blocks_per_unit); }
  bool operator==(const BlockOffload&) const = default;
};
/// Single layers stream through the device.
struct LeafOffload {
  std::size_t lookahead = 2;
  constexpr OffloadSettings settings() const { return {.level = Level::leaf, .lookahead = lookahead}; }
  std::string text() const { return "leaf"; }
  bool operator==(const LeafOffload&) const = default;
};
/// As many layers as fit in `bytes` of device memory stay there while their component runs, the rest streams.
struct Budget {
  std::size_t bytes = 0;
  std::size_t lookahead = 2;
  constexpr OffloadSettings settings() const {
    return {.level = Level::leaf, .lookahead = lookahead, .budget_bytes = bytes};
  }
  std::string text() const { return "budget:" + detail::byte_text(bytes); }
  bool operator==(const Budget&) const = default;
};
static_assert(OffloadPolicy<NoOffload> && OffloadPolicy<ModelOffload> && OffloadPolicy<BlockOffload> &&
              OffloadPolicy<LeafOffload> && OffloadPolicy<Budget>);

/// A policy that is chosen at run time, e.g. on the command line.
class OffloadSpec {
 public:
  OffloadSpec() = default;
  template <class Policy>
    requires(!std::same_as<Policy, OffloadSpec>) && OffloadPolicy<Policy>
  explicit OffloadSpec(Policy policy) : policy_(std::move(policy)) {}

  /// Reads "none", "model", "block", "block:N", "leaf" or "budget:BYTES".
  /// @throws ConfigError that lists these
  static OffloadSpec parse(std::string_view text) {
    const std::size_t colon = text.find(':');
    const std::string_view name = text.substr(0, colon);
    const auto argument = colon == std::string_view::npos ? std::nullopt : std::optional(text.substr(colon + 1));
    if (name == "block" && argument) {
      std::size_t blocks = 0;
      const char* end = argument->data() + argument->size();
      const auto [stop, status] = std::from_chars(argument->data(), end, blocks);
      if (status != std::errc{} || stop != end || blocks == 0)
        throw ConfigError(concat("offload '", text,
                                 "': the number of blocks that move together must be a whole "
                                 "number of at least 1, e.g. block:2, found '",
                                 *argument, "'"));
      return OffloadSpec(BlockOffload{.blocks_per_unit = blocks});
    }
    if (name == "budget" && argument) return OffloadSpec(Budget{.bytes = parse_bytes(*argument)});
    if (name == "budget")
      throw ConfigError("offload 'budget' needs the bytes of device memory that weights may take, e.g. budget:6G");
    if (!argument) {
      if (name == "none") return OffloadSpec(NoOffload{});
      if (name == "model") return OffloadSpec(ModelOffload{});
      if (name == "block") return OffloadSpec(BlockOffload{});
      if (name == "leaf") return OffloadSpec(LeafOffload{});
    }
    throw ConfigError(
        concat("there is no offload policy '", text, "'; choose none, model, block, block:N, leaf or budget:BYTES"));
  }

  OffloadSettings settings() const {
    return std::visit([](const auto& policy) { return policy.settings(); }, policy_);
  }
  /// What `parse` reads back, up to lookaheads, which have no spelling.
  std::string text() const {
    return std::visit([](const auto& policy) { return policy.text(); }, policy_);
  }
  const auto& policy() const { return policy_; }
  bool operator==(const OffloadSpec&) const = default;

 private:
  std::variant<NoOffload, ModelOffload, BlockOffload, LeafOffload, Budget> policy_;
};
static_assert(OffloadPolicy<OffloadSpec>);

}  // namespace ebb
