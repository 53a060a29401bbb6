#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/unicode.hpp"
#include "ebb/core/error.hpp"

namespace ebb::examples {

/// SentencePiece's compiled text normalization: a double-array trie of sequences to replace, and their replacements.
/// The library's own walk over it trusts the file; this one checks every step.
///
/// Layout: uint32 size of the trie in bytes, the trie's uint32 units, then replacements that each end with a zero byte.
/// As in transformers, a grapheme of fewer than six bytes that begins with a known sequence is replaced as a whole by
/// what the shortest one stands for; otherwise each code point is replaced alone.
class PrecompiledCharsmap {
 public:
  PrecompiledCharsmap() = default;  // replaces nothing

  /// `source` names file and field for messages. @throws FileError
  PrecompiledCharsmap(std::string_view blob, std::string source) : source_(std::move(source)) {
    if (blob.empty()) return;
    const auto word = [&](std::size_t at) {
      std::uint32_t value = 0;
      for (std::size_t i = 0; i < 4; ++i)
        value |= static_cast<std::uint32_t>(static_cast<unsigned char>(blob[at + i])) << (8 * i);
      return value;
    };
    const std::size_t trie_bytes = blob.size() >= 4 ? word(0) : 0;
    if (trie_bytes < 4 || trie_bytes % 4 != 0 || trie_bytes >= blob.size() - 4 || blob.back() != '\0')
      fail("expected a trie and replacements that end with a zero byte");
    for (std::size_t at = 4; at < 4 + trie_bytes; at += 4) units_.push_back(word(at));
    replacements_ = blob.substr(4 + trie_bytes);
    for (std::size_t at = 0; at < replacements_.size();) {
      const std::size_t end = replacements_.find('\0', at);
      if (end - at > longest_replacement) fail(concat("a replacement is longer than ", longest_replacement, " bytes"));
      at = end + 1;
    }
  }

  /// `text` must be valid UTF-8. @throws FileError when the trie leads outside of itself
  std::string normalize(std::string_view text) const {
    if (units_.empty()) return std::string(text);
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
      const std::string_view grapheme = text.substr(0, first_grapheme_bytes(text));
      text.remove_prefix(grapheme.size());
      if (const auto whole = grapheme.size() < 6 ? shortest_match(grapheme) : std::nullopt) {
        result += *whole;
        continue;
      }
      for (std::string_view rest = grapheme; !rest.empty();) {
        const std::string_view letter = rest.substr(0, first_code_point(rest).bytes);
        result += shortest_match(letter).value_or(letter);
        rest.remove_prefix(letter.size());
      }
    }
    return result;
  }

 private:
  static constexpr std::size_t longest_replacement = 1024;

  std::optional<std::string_view> shortest_match(std::string_view text) const {
    std::size_t node = offset(unit(0));
    for (std::size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      node ^= byte;
      const std::uint32_t here = unit(node);
      if ((here & 0x800000ffu) != byte) break;
      node ^= offset(here);
      if (here & 0x100u) return replacement(unit(node) & 0x7fffffffu);
    }
    return {};
  }

  static std::size_t offset(std::uint32_t unit) { return std::size_t{unit >> 10} << ((unit & 0x200u) >> 6); }
  std::uint32_t unit(std::size_t at) const {
    if (at >= units_.size()) fail("the trie leads outside of itself");
    return units_[at];
  }
  std::string_view replacement(std::size_t at) const {
    if (at >= replacements_.size()) fail("the trie leads outside of its replacements");
    return std::string_view(replacements_).substr(at, replacements_.find('\0', at) - at);
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw FileError(concat(source_, ": the compiled normalization is damaged: ", what));
  }

  std::string source_;
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace ebb::examples
