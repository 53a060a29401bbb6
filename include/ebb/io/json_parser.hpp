#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/io/json.hpp"
#include "ebb/io/text_file.hpp"

namespace ebb {

/// What a JSON text may cost to read.
struct JsonLimits {
  std::size_t depth = 64;         // arrays and objects inside each other
  std::size_t values = 1u << 22;  // in the whole text; each takes some 40 bytes of memory
};

/// Reads one JSON text (RFC 8259) and nothing else: no comments, no trailing commas, no NaN, valid UTF-8 only, and no
/// key twice in an object, which other readers resolve in different ways. A number too large for a double is an error,
/// one too small is zero.
class JsonParser {
 public:
  /// `source` names the text in messages, e.g. the file. @throws FileError with the byte where reading stopped
  static Json parse(std::string_view text, std::string_view source, JsonLimits limits = {}) {
    JsonParser parser(text, source, limits);
    parser.skip_space();
    Json value = parser.value(0);
    parser.skip_space();
    if (!parser.ended()) parser.fail("the end of the text");
    return value;
  }

  /// A whole file, of at most `max_bytes`. @throws FileError
  static Json parse_file(const std::filesystem::path& path, std::size_t max_bytes = most_text_bytes) {
    return parse(read_text(path, max_bytes, "JSON"), path.string());
  }

 private:
  JsonParser(std::string_view text, std::string_view source, JsonLimits limits)
      : text_(text), source_(source), limits_(limits) {}

  bool ended() const { return at_ == text_.size(); }
  char peek() const { return ended() ? '\0' : text_[at_]; }
  bool take(char expected) {
    if (ended() || text_[at_] != expected) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\n\r", at_), text_.size()); }
  [[noreturn]] void fail(std::string_view expected) const {
    const std::string found = ended() ? "the end of the text" : Json::quoted(text_.substr(at_, 1));
    throw FileError(concat(source_, ": not valid JSON at byte ", at_, ": expected ", expected, ", found ", found));
  }

  Json value(std::size_t depth) {
    if (depth == limits_.depth && (peek() == '{' || peek() == '['))
      throw FileError(
          concat(source_, ": JSON at byte ", at_, " is nested too deep: expected at most ", limits_.depth, " levels"));
    if (++values_ > limits_.values)
      throw FileError(concat(source_, ": JSON at byte ", at_, ": expected at most ", limits_.values, " values"));
    switch (peek()) {
      case '{':
        return object(depth);
      case '[':
        return array(depth);
      case '"':
        return Json(string());
      case 't':
        if (take("true")) return Json(true);
        break;
      case 'f':
        if (take("false")) return Json(false);
        break;
      case 'n':
        if (take("null")) return Json();
        break;
      default:
        if (peek() == '-' || is_digit(peek())) return number();
    }
    fail("a value");
  }

  Json object(std::size_t depth) {
    const std::size_t begin = at_++;
    Json::Object members;
    skip_space();
    if (take('}')) return Json(std::move(members));
    do {
      skip_space();
      if (peek() != '"') fail("a key in quotes");
      std::string key = string();
      skip_space();
      if (!take(':')) fail("':'");
      skip_space();
      members.emplace_back(std::move(key), value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take('}')) fail("',' or '}'");
    refuse_repeated_keys(members, begin);
    return Json(std::move(members));
  }

  void refuse_repeated_keys(const Json::Object& members, std::size_t begin) const {
    std::vector<std::string_view> keys;
    keys.reserve(members.size());
    for (const auto& [key, value] : members) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end())
      throw FileError(concat(source_, ": the JSON object at byte ", begin, " has the key ", Json::quoted(*twice),
                             " twice: expected each key once"));
  }

  Json array(std::size_t depth) {
    ++at_;
    Json::Array items;
    skip_space();
    if (take(']')) return Json(std::move(items));
    do {
      skip_space();
      items.push_back(value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take(']')) fail("',' or ']'");
    return Json(std::move(items));
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  void skip_digits() {
    if (!is_digit(peek())) fail("a digit");
    while (is_digit(peek())) ++at_;
  }

  Json number() {
    const std::size_t begin = at_;
    bool whole = true;
    take('-');
    if (!take('0')) skip_digits();
    if (take('.')) {
      whole = false;
      skip_digits();
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      skip_digits();
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    std::int64_t integer = 0;
    if (whole && std::from_chars(first, last, integer).ec == std::errc()) return Json(integer);
    double real = 0.0;
    if (std::from_chars(first, last, real).ec != std::errc()) {
      if (vanishes({first, last})) return Json(*first == '-' ? -0.0 : 0.0);
      at_ = begin;
      fail("a number that a double can hold");
    }
    return Json(real);
  }

  /// Of a number other than zero that no double can hold, whether it is too small and not too large: whether its power
  /// of ten, "d.ddde-400", is negative.
  static bool vanishes(std::string_view number) {
    const std::size_t e = std::min(number.find_first_of("eE"), number.size());
    const std::string_view mantissa = number.substr(0, e);
    const auto point = static_cast<std::int64_t>(std::min(mantissa.find('.'), mantissa.size()));
    const auto digit = static_cast<std::int64_t>(mantissa.find_first_of("123456789"));
    std::string_view written = number.substr(std::min(e + 1, number.size()));
    if (written.starts_with('+')) written.remove_prefix(1);
    std::int64_t exponent = 0;
    if (std::from_chars(written.data(), written.data() + written.size(), exponent).ec == std::errc::result_out_of_range)
      return written.starts_with('-');
    return exponent < digit - point + (digit < point ? 1 : 0);
  }

  std::string string() {
    ++at_;
    std::string out;
    while (true) {
      if (ended()) fail("'\"'");
      const std::size_t plain = run_of_plain_ascii();
      out += text_.substr(at_, plain);
      at_ += plain;
      if (plain != 0) continue;
      if (take('"')) return out;
      if (take('\\')) {
        escape(out);
        continue;
      }
      if (static_cast<unsigned char>(peek()) < 0x20) fail("no control character inside a string");
      const detail::Utf8 character = detail::Utf8::decode(text_.substr(at_));
      if (character.bytes == 0) fail("valid UTF-8");
      out += text_.substr(at_, character.bytes);
      at_ += character.bytes;
    }
  }

  std::size_t run_of_plain_ascii() const {
    std::size_t end = at_;
    while (end < text_.size()) {
      const auto c = static_cast<unsigned char>(text_[end]);
      if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') break;
      ++end;
    }
    return end - at_;
  }

  void escape(std::string& out) {
    constexpr std::string_view letters = "\"\\/bfnrt";
    constexpr std::string_view meaning = "\"\\/\b\f\n\r\t";
    if (ended()) fail("an escape");
    const std::size_t index = letters.find(peek());
    if (index != letters.npos) {
      out += meaning[index];
      ++at_;
      return;
    }
    if (!take('u')) fail("one of \" \\ / b f n r t u after a backslash");
    std::uint32_t point = hex4();
    if (point >= 0xdc00 && point < 0xe000) fail("no lone low surrogate");
    if (point >= 0xd800 && point < 0xdc00) {
      if (!take("\\u")) fail("the low surrogate of a pair");
      const std::uint32_t low = hex4();
      if (low < 0xdc00 || low >= 0xe000) fail("the low surrogate of a pair");
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    }
    detail::Utf8::append(out, point);
  }

  std::uint32_t hex4() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      const int digit = is_digit(c)            ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("a hexadecimal digit");
      value = value * 16 + static_cast<std::uint32_t>(digit);
    }
    return value;
  }

  std::string_view text_;
  std::string_view source_;
  JsonLimits limits_;
  std::size_t at_ = 0;
  std::size_t values_ = 0;
};

}  // namespace ebb
