#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/core/error.hpp"

namespace ebb::examples {

/// A prompt as a model reads it.
struct Encoding {
  std::vector<std::int32_t> ids;  // exactly as many as were asked for, padded
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
    const std::size_t length = byte < 0x80 ? 1 : byte < 0xc2 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 0;
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

/// Splits text at added tokens, the leftmost first, and of those the longest: calls `plain(piece)` and `token(id)`.
template <class Plain, class Token>
void split_at_added_tokens(std::string_view text, const std::vector<AddedToken>& tokens, Plain&& plain, Token&& token) {
  while (!text.empty()) {
    std::size_t at = std::string_view::npos;
    const AddedToken* found = nullptr;
    for (const AddedToken& each : tokens) {
      const std::size_t here = text.find(each.content);
      if (here == std::string_view::npos) continue;
      if (here < at || (here == at && each.content.size() > found->content.size())) {
        at = here;
        found = &each;
      }
    }
    if (!found) break;
    if (at > 0) plain(text.substr(0, at));
    token(found->id);
    text.remove_prefix(at + found->content.size());
  }
  if (!text.empty()) plain(text);
}

/// "content" of a token that is written as a string or as an object; nothing when it is neither.
inline std::optional<std::string> token_content(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value.at("content").is_string())
    return value.at("content").get<std::string>();
  return {};
}

/// A field such as "pad_token" of the first of the optional files beside a tokenizer that has it.
inline std::optional<std::string> token_field(const std::filesystem::path& directory, const char* field) {
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    if (!std::filesystem::exists(directory / name)) continue;
    const auto file = ConfigFile::open(directory / name);
    if (file.has(field))
      if (auto content = token_content(file.json().at(field))) return content;
  }
  return {};
}

/// The list "added_tokens" of a tokenizer.json. @throws FileError
inline std::vector<AddedToken> added_tokens(const ConfigFile& file) {
  std::vector<AddedToken> tokens;
  if (!file.has("added_tokens")) return tokens;
  for (const auto& entry : file.json().at("added_tokens")) {
    if (!entry.is_object() || !entry.contains("id") || !entry.at("id").is_number_unsigned() ||
        !token_content(entry) || token_content(entry)->empty() || entry.at("id").get<std::uint64_t>() > 0x7fffffffu)
      throw FileError(concat(file.path().string(),
                             ": field \"added_tokens\": expected objects with \"id\" and \"content\""));
    tokens.push_back({*token_content(entry), entry.at("id").get<std::int32_t>()});
  }
  return tokens;
}

}  // namespace detail

}  // namespace ebb::examples
