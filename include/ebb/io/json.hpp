#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ebb/core/error.hpp"

namespace ebb {

/// How text outside ASCII is written: as `\u` escapes (Python's default) or as it is.
enum class JsonText { ascii, utf8 };

/// A JSON value. Objects keep the order of their members. Integers from -2^63 to 2^63 - 1 are kept exact, all other
/// numbers are doubles.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  /// null
  Json() = default;
  Json(std::same_as<bool> auto value) : value_(value) {}
  Json(std::integral auto value)
    requires(!std::same_as<decltype(value), bool>)
  {
    if (value > 0 && static_cast<std::uint64_t>(value) > std::numeric_limits<std::int64_t>::max())
      value_ = static_cast<double>(value);
    else
      value_ = static_cast<std::int64_t>(value);
  }
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  /// Each is null when the value has another type.
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }
  /// Any number, integers rounded; `otherwise` when the value is none.
  double number(double otherwise) const {
    if (const auto* real = std::get_if<double>(&value_)) return *real;
    if (const auto* whole = integer()) return static_cast<double>(*whole);
    return otherwise;
  }
  bool is_number() const { return std::holds_alternative<double>(value_) || integer() != nullptr; }

  /// The member `key`, or null when there is none or this is no object. Linear in the number of members.
  const Json* find(std::string_view key) const {
    if (const Object* members = object())
      for (const auto& [name, value] : *members)
        if (name == key) return &value;
    return nullptr;
  }

  /// For messages: "an object", "a number", ...
  std::string_view type_name() const {
    constexpr std::array<std::string_view, 7> names{"null",     "true or false", "an integer", "a number",
                                                    "a string", "an array",      "an object"};
    return names[value_.index()];
  }

  /// The text that Python's `json.dumps` writes: on one line with ", " and ": ", or, with `indent` spaces a level, on
  /// many.
  std::string text(std::size_t indent = 0, JsonText characters = JsonText::ascii) const {
    std::string out;
    write(out, indent, 0, characters);
    return out;
  }

  /// `text` in quotes, with everything escaped that must be; invalid UTF-8 becomes U+FFFD in ASCII output.
  static std::string quoted(std::string_view text, JsonText characters = JsonText::ascii);
  /// The shortest digits that read back as `value`, laid out as Python's `repr` does.
  static std::string digits(double value);

  bool operator==(const Json& other) const { return value_ == other.value_; }  // nvcc cannot default it here

 private:
  void write(std::string& out, std::size_t indent, std::size_t depth, JsonText characters) const {
    const auto line = [&](std::size_t level) {
      if (indent != 0) out.append(1, '\n').append(level * indent, ' ');
    };
    const std::string_view comma = indent == 0 ? ", " : ",";
    if (is_null()) {
      out += "null";
    } else if (const bool* flag = boolean()) {
      out += *flag ? "true" : "false";
    } else if (const auto* whole = integer()) {
      out += std::to_string(*whole);
    } else if (const auto* real = std::get_if<double>(&value_)) {
      out += digits(*real);
    } else if (const auto* words = string()) {
      out += quoted(*words, characters);
    } else if (const Array* items = array()) {
      out += '[';
      for (std::size_t i = 0; i < items->size(); ++i) {
        if (i != 0) out += comma;
        line(depth + 1);
        (*items)[i].write(out, indent, depth + 1, characters);
      }
      if (!items->empty()) line(depth);
      out += ']';
    } else if (const Object* members = object()) {
      out += '{';
      for (std::size_t i = 0; i < members->size(); ++i) {
        if (i != 0) out += comma;
        line(depth + 1);
        out += quoted((*members)[i].first, characters) + ": ";
        (*members)[i].second.write(out, indent, depth + 1, characters);
      }
      if (!members->empty()) line(depth);
      out += '}';
    }
  }

  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

namespace detail {
/// Decodes the UTF-8 sequence at the front of `text`: its length in bytes and the code point, or length 0 when it is
/// not valid (overlong, surrogate, past U+10FFFF, cut short).
struct Utf8 {
  std::size_t bytes = 0;
  std::uint32_t point = 0;

  static Utf8 decode(std::string_view text) {
    const auto at = [text](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
    const std::uint32_t first = at(0);
    if (first < 0x80) return {1, first};
    const std::size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || bytes > text.size()) return {};
    std::uint32_t point = first & (0x7fu >> bytes);
    for (std::size_t i = 1; i < bytes; ++i) {
      if ((at(i) & 0xc0) != 0x80) return {};
      point = (point << 6) | (at(i) & 0x3f);
    }
    constexpr std::array<std::uint32_t, 5> smallest{0, 0, 0x80, 0x800, 0x10000};
    if (point < smallest[bytes] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return {};
    return {bytes, point};
  }

  static bool valid(std::string_view text) {
    while (!text.empty()) {
      const Utf8 character = decode(text);
      if (character.bytes == 0) return false;
      text.remove_prefix(character.bytes);
    }
    return true;
  }

  /// Whether `text` is valid and has no control character (C0, DEL, C1), which a terminal obeys.
  static bool printable(std::string_view text) {
    while (!text.empty()) {
      const auto [bytes, point] = decode(text);
      if (bytes == 0 || point < 0x20 || (point >= 0x7f && point < 0xa0)) return false;
      text.remove_prefix(bytes);
    }
    return true;
  }

  static void append(std::string& out, std::uint32_t point) {
    const auto tail = [&](unsigned shift) { out += static_cast<char>(0x80 | ((point >> shift) & 0x3f)); };
    if (point < 0x80) {
      out += static_cast<char>(point);
    } else if (point < 0x800) {
      out += static_cast<char>(0xc0 | (point >> 6));
      tail(0);
    } else if (point < 0x10000) {
      out += static_cast<char>(0xe0 | (point >> 12));
      tail(6), tail(0);
    } else {
      out += static_cast<char>(0xf0 | (point >> 18));
      tail(12), tail(6), tail(0);
    }
  }
};
}  // namespace detail

inline std::string Json::quoted(std::string_view text, JsonText characters) {
  std::string out = "\"";
  const auto escape = [&out](std::uint32_t unit) {
    constexpr std::string_view hex = "0123456789abcdef";
    out += "\\u";
    for (const unsigned shift : {12u, 8u, 4u, 0u}) out += hex[(unit >> shift) & 0xf];
  };
  constexpr std::string_view named = "\"\\\b\f\n\r\t";
  constexpr std::string_view letters = "\"\\bfnrt";
  while (!text.empty()) {
    detail::Utf8 character = detail::Utf8::decode(text);
    const std::size_t bytes = std::max<std::size_t>(character.bytes, 1);
    if (character.bytes == 0) character.point = 0xfffd;
    const std::size_t index = character.point < 0x80 ? named.find(static_cast<char>(character.point)) : named.npos;
    if (index != named.npos) {
      out += '\\';
      out += letters[index];
    } else if (character.point < 0x20) {
      escape(character.point);
    } else if (character.point < 0x7f || characters == JsonText::utf8) {
      out += text.substr(0, bytes);
    } else if (character.point < 0x10000) {
      escape(character.point);
    } else {
      escape(0xd800 + ((character.point - 0x10000) >> 10));
      escape(0xdc00 + ((character.point - 0x10000) & 0x3ff));
    }
    text.remove_prefix(bytes);
  }
  return out + '"';
}

inline std::string Json::digits(double value) {
  if (!(value - value == 0.0)) return value != value ? "NaN" : value > 0.0 ? "Infinity" : "-Infinity";
  std::array<char, 32> buffer{};  // stays terminated by a zero
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t e = text.find('e');
  const int exponent = std::atoi(text.data() + e + 1);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::string sign(text.starts_with('-') ? "-" : "");
  std::string figures;
  for (const char c : text.substr(sign.size(), e - sign.size()))
    if (c != '.') figures += c;
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + figures;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (figures.size() <= whole) return sign + figures + std::string(whole - figures.size(), '0') + ".0";
  return sign + figures.substr(0, whole) + "." + figures.substr(whole);
}

}  // namespace ebb
