#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/html_entities.hpp"
#include "common/unicode.hpp"

namespace ebb::examples {

namespace detail {

/// What a numeric character reference stands for: as HTML 5 has it, references to the C1 controls mean Windows-1252,
/// those to other controls and to noncharacters nothing.
inline std::string numeric_reference(std::uint32_t code) {
  constexpr char32_t windows_1252[]{0x20ac, 0x0081, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021,
                                    0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0x008d, 0x017d, 0x008f,
                                    0x0090, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                    0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x009d, 0x017e, 0x0178};
  std::string text;
  if (code >= 0x80 && code < 0xa0) {
    append_utf8(static_cast<std::int32_t>(windows_1252[code - 0x80]), text);
  } else if (code == 0 || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) {
    append_utf8(0xfffd, text);
  } else {
    const bool kept_control = code == '\t' || code == '\n' || code == '\f' || code == '\r';
    const bool control = (code < 0x20 && !kept_control) || code == 0x7f;
    const bool noncharacter = (code >= 0xfdd0 && code < 0xfdf0) || (code & 0xfffe) == 0xfffe;
    if (!control && !noncharacter) append_utf8(static_cast<std::int32_t>(code), text);
  }
  return text;
}

/// What the entity `name` stands for, if there is one. `name` may end with its semicolon; most have to.
inline std::optional<std::string> named_reference(std::string_view name) {
  const bool closed = name.ends_with(';');
  if (closed) name.remove_suffix(1);
  const auto& open = html_entities_without_semicolon;
  if (!closed && !std::binary_search(open.begin(), open.end(), name)) return {};
  const auto entity =
      std::lower_bound(html_entities.begin(), html_entities.end(), name,
                       [](const HtmlEntity& each, std::string_view wanted) { return each.name < wanted; });
  if (entity == html_entities.end() || entity->name != name) return {};
  std::string text;
  append_utf8(static_cast<std::int32_t>(entity->first), text);
  if (entity->second != 0) append_utf8(static_cast<std::int32_t>(entity->second), text);
  return text;
}

/// A character reference at the beginning of a text, and what it stands for.
struct Reference {
  std::size_t bytes;
  std::string meaning;
};

/// The numeric reference that begins behind "&#", if one does.
inline std::optional<Reference> numeric_reference_at(std::string_view text) {
  const bool hexadecimal = text.starts_with('x') || text.starts_with('X');
  const std::size_t begin = hexadecimal ? 1 : 0;
  std::uint32_t code = 0;
  std::size_t end = begin;
  for (; end < text.size(); ++end) {
    const auto letter = static_cast<unsigned char>(text[end]);
    const auto folded = static_cast<unsigned char>(letter | 0x20);
    const bool digit = letter >= '0' && letter <= '9';
    if (!digit && !(hexadecimal && folded >= 'a' && folded <= 'f')) break;
    const std::uint32_t value = digit ? letter - std::uint32_t{'0'} : folded - std::uint32_t{'a'} + 10;
    code = std::min<std::uint32_t>(code * (hexadecimal ? 16 : 10) + value, 0x110000);
  }
  if (end == begin) return {};
  if (text.substr(end).starts_with(';')) ++end;
  return Reference{end, numeric_reference(code)};
}

/// The named reference that begins behind "&": the whole name, or the longest beginning that needs no semicolon.
inline std::optional<Reference> named_reference_at(std::string_view text) {
  constexpr std::size_t longest = 32;  // code points
  std::size_t end = 0;
  for (std::size_t letters = 0; letters < longest && end < text.size(); ++letters) {
    if (std::string_view("\t\n\f <&#;").find(text[end]) != std::string_view::npos) break;
    end += first_code_point(text.substr(end)).bytes;
  }
  if (end == 0) return {};
  if (text.substr(end).starts_with(';')) ++end;
  if (auto meaning = named_reference(text.substr(0, end))) return Reference{end, *std::move(meaning)};
  for (std::size_t shorter = end - 1; shorter > 0; --shorter)
    if (auto meaning = named_reference(text.substr(0, shorter))) return Reference{shorter, *std::move(meaning)};
  return {};
}

}  // namespace detail

/// HTML's character references ("&amp;", "&eacute", "&#x1F680;") replaced once, as Python's html.unescape does.
inline std::string unescape_html(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = text.find('&'); at != std::string_view::npos; at = text.find('&')) {
    result.append(text.substr(0, at));
    text.remove_prefix(at + 1);
    const bool numeric = text.starts_with('#');
    const auto reference = numeric ? detail::numeric_reference_at(text.substr(1)) : detail::named_reference_at(text);
    if (!reference) {
      result.push_back('&');
      continue;
    }
    result.append(reference->meaning);
    text.remove_prefix(reference->bytes + (numeric ? 1 : 0));
  }
  return result.append(text);
}

/// A prompt as Wan's tokenizer gets it: character references replaced twice, white space at both ends dropped and
/// within the text made a single blank each. What diffusers does where the Python package ftfy is not installed.
inline std::string clean_prompt(std::string_view prompt) {
  const std::string text = unescape_html(unescape_html(prompt));
  // Python's strip takes four separators for white space that regular expressions do not.
  const auto stripped = [](std::int32_t code) {
    return kind_of(code) == TextKind::blank || (code >= 0x1c && code <= 0x1f);
  };
  std::string_view rest = text;
  const auto strip = [&] {
    while (!rest.empty() && stripped(first_code_point(rest).code)) rest.remove_prefix(first_code_point(rest).bytes);
    while (!rest.empty() && stripped(last_code_point(rest).code)) rest.remove_suffix(last_code_point(rest).bytes);
  };
  strip();
  std::string result;
  for_each_word(rest, [&](std::string_view word) {
    if (!result.empty()) result.push_back(' ');
    result.append(word);
  });
  return result;
}

}  // namespace ebb::examples
