#pragma once

#include <utf8proc.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ebb::examples {

/// What the tokenizers' regular expressions tell apart: \s, \p{L}, \p{N} and the rest. The Unicode version is that of
/// the installed utf8proc; letters that are newer count as `other`.
enum class TextKind { blank, letter, number, other };

inline TextKind kind_of(std::int32_t code) {
  if (code == ' ' || (code >= 9 && code <= 13) || code == 0x85) return TextKind::blank;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return TextKind::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return TextKind::number;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return TextKind::blank;
    default:
      return TextKind::other;
  }
}

/// \w of a regular expression: letters, marks, digits, connecting punctuation, the two joiners.
inline bool belongs_to_word(std::int32_t code) {
  if (kind_of(code) == TextKind::letter || code == 0x200c || code == 0x200d) return true;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

/// A code point and its length in bytes.
struct CodePoint {
  std::int32_t code;
  std::size_t bytes;
};

/// The first code point of a text that is not empty; a broken byte reads as U+FFFD.
inline CodePoint first_code_point(std::string_view text) {
  utf8proc_int32_t code = 0;
  const utf8proc_ssize_t bytes = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                                  static_cast<utf8proc_ssize_t>(text.size()), &code);
  if (bytes <= 0) return {0xfffd, 1};
  return {code, static_cast<std::size_t>(bytes)};
}

/// The last code point of a valid text that is not empty.
inline CodePoint last_code_point(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return first_code_point(text.substr(at));
}

inline void append_utf8(std::int32_t code, std::string& text) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const utf8proc_ssize_t count = utf8proc_encode_char(code, bytes.data());
  text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(count));
}

/// Bytes of the first extended grapheme cluster of a valid text that is not empty.
inline std::size_t first_grapheme_bytes(std::string_view text) {
  CodePoint next = first_code_point(text);
  std::size_t bytes = next.bytes;
  for (utf8proc_int32_t state = 0; bytes < text.size(); bytes += next.bytes) {
    const std::int32_t before = next.code;
    next = first_code_point(text.substr(bytes));
    if (utf8proc_grapheme_break_stateful(before, next.code, &state)) break;
  }
  return bytes;
}

/// Calls `word(piece)` for what lies between white space.
template <class Word>
void for_each_word(std::string_view text, Word&& word) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint next = first_code_point(text.substr(at));
    if (kind_of(next.code) == TextKind::blank) {
      if (at > begin) word(text.substr(begin, at - begin));
      begin = at + next.bytes;
    }
    at += next.bytes;
  }
  if (begin < text.size()) word(text.substr(begin));
}

}  // namespace ebb::examples
