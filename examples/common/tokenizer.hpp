#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ebb::examples {

/// A prompt as a model reads it.
struct Encoding {
  std::vector<std::int32_t> ids;  // exactly as many as were asked for, padded
  std::size_t length = 0;         // how many of them are the prompt's, with the begin and end tokens
  std::string truncated_text;     // what did not fit, as the tokens spell it; empty when all did
};

/// A token that is looked for in the raw text before anything else happens to it.
struct AddedToken {
  std::string content;
  std::int32_t id;
};

namespace detail {

/// Text without invalid UTF-8: each broken byte becomes U+FFFD.
inline std::string valid_utf8(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = byte < 0x80   ? 1
                               : byte < 0xc2 ? 0
                               : byte < 0xe0 ? 2
                               : byte < 0xf0 ? 3
                               : byte < 0xf5 ? 4
                                             : 0;
    bool valid = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; valid && k < length; ++k) valid = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    if (valid && length > 2) {  // overlong forms, surrogates, beyond U+10FFFF
      const auto second = static_cast<unsigned char>(text[i + 1]);
      valid = !((byte == 0xe0 && second < 0xa0) || (byte == 0xed && second > 0x9f) || (byte == 0xf0 && second < 0x90) ||
                (byte == 0xf4 && second > 0x8f));
    }
    if (valid) {
      result.append(text.substr(i, length));
      i += length;
    } else {
      result += "\xef\xbf\xbd";
      ++i;
    }
  }
  return result;
}

/// "content" of a token that is written as a string or as an object; nothing when it is neither.
inline std::optional<std::string> token_content(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value.at("content").is_string())
    return value.at("content").get<std::string>();
  return {};
}

}  // namespace detail

}  // namespace ebb::examples
