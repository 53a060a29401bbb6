#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "common/tokenizer.hpp"
#include "common/unicode.hpp"

namespace ebb::examples {

/// A token that is found in the text as it is written, with the flags of transformers' AddedToken. "lstrip" and
/// "rstrip" are not kept: they swallow white space, which both tokenizers drop beside a token anyway.
struct LiteralToken : AddedToken {
  enum class Search { raw_text, normalized_text } search = Search::raw_text;
  enum class Place { anywhere, between_words } place = Place::anywhere;  // "single_word"
};

/// The literal tokens of one tokenizer. Search is leftmost, of those the longest, linear in the text.
class LiteralTokens {
 public:
  bool empty() const { return count_ == 0; }

  /// Replaces a token of the same content.
  void add(LiteralToken token) {
    if (token.content.empty()) return;
    auto& bucket = buckets_[static_cast<unsigned char>(token.content.front())];
    const auto same = std::find_if(bucket.begin(), bucket.end(),
                                   [&](const LiteralToken& each) { return each.content == token.content; });
    if (same != bucket.end()) {
      *same = std::move(token);
      return;
    }
    const auto longer = [&](const LiteralToken& each) { return each.content.size() >= token.content.size(); };
    bucket.insert(std::find_if_not(bucket.begin(), bucket.end(), longer), std::move(token));
    ++count_;
  }

  /// Calls `plain(piece)` and `token(id)` in the order of the text.
  template <class Plain, class Token>
  void split(std::string_view text, Plain&& plain, Token&& token) const {
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size();) {
      const LiteralToken* found = at_start_of(text.substr(at));
      if (!found) {
        ++at;
        continue;
      }
      const std::size_t end = at + found->content.size();
      if (found->place == LiteralToken::Place::anywhere || between_words(text, at, end)) {
        if (at > begin) plain(text.substr(begin, at - begin));
        token(found->id);
        begin = end;
      }
      at = end;
    }
    if (begin < text.size()) plain(text.substr(begin));
  }

 private:
  const LiteralToken* at_start_of(std::string_view text) const {
    for (const LiteralToken& each : buckets_[static_cast<unsigned char>(text.front())])
      if (text.starts_with(each.content)) return &each;
    return nullptr;
  }
  static bool between_words(std::string_view text, std::size_t begin, std::size_t end) {
    return (begin == 0 || !belongs_to_word(last_code_point(text.substr(0, begin)).code)) &&
           (end == text.size() || !belongs_to_word(first_code_point(text.substr(end)).code));
  }

  std::array<std::vector<LiteralToken>, 256> buckets_;  // by first byte; within one, the longest first
  std::size_t count_ = 0;
};

/// Reads what a tokenizer directory says about literal tokens, each file checked.
class LiteralTokenFiles {
 public:
  /// "added_tokens_decoder" of `tokenizer_config.json` (transformers 4) when there is one, else `added_tokens.json`
  /// (older ones) and "added_tokens" of `tokenizer.json` (transformers 5), the second over the first.
  /// `ids`: how many ids the vocabulary has; added ones may follow, up to `most_added` of them.
  /// @throws FileError for wrong types, ids out of range, two tokens with one id, more than `most_added` tokens
  static std::vector<LiteralToken> read(const std::filesystem::path& directory, std::size_t ids) {
    LiteralTokenFiles files(ids + most_added);
    const auto config = open_if_there(directory / "tokenizer_config.json");
    if (config && config->has(decoder)) {
      files.read_decoder(*config);
      return std::move(files.tokens_);
    }
    if (const auto file = open_if_there(directory / "added_tokens.json")) {
      std::set<std::string> special;
      for (const char* field : {"bos_token", "eos_token", "unk_token", "pad_token"})
        if (const auto token = named(directory, field)) special.insert(token->content);
      for (const auto& [content, id] : file->json().items())
        files.add(file->path(), "added tokens", content, id, {{"normalized", !special.contains(content)}});
    }
    if (const auto file = open_if_there(directory / "tokenizer.json"); file && file->has("added_tokens"))
      files.read_list(*file);
    return std::move(files.tokens_);
  }

  /// The token named `field` ("pad_token") with its flags; a plain string has none. Nothing when no file names it.
  /// `special_tokens_map.json` speaks first, unless tokenizer_config.json has "added_tokens_decoder".
  static std::optional<LiteralToken> named(const std::filesystem::path& directory, const char* field) {
    auto first = open_if_there(directory / "special_tokens_map.json");
    auto second = open_if_there(directory / "tokenizer_config.json");
    if (second && second->has(decoder)) std::swap(first, second);
    for (const auto* file : {&first, &second}) {
      if (!*file || !(*file)->has(field)) continue;
      const auto& path = (*file)->path();
      const auto& value = (*file)->json().at(field);
      const auto content = detail::token_content(value);
      if (!content || content->empty())
        throw FileError(concat(path.string(), ": field \"", field, "\": expected a token or its \"content\", found ",
                               value.type_name()));
      LiteralToken token{{*content, -1}};
      if (value.is_object()) read_flags(path, field, value, token);
      return token;
    }
    return {};
  }

  static constexpr std::size_t most_added = 4096;  // every one is compared with every other one

 private:
  static constexpr const char* decoder = "added_tokens_decoder";

  explicit LiteralTokenFiles(std::size_t limit) : limit_(limit) {}

  static std::optional<ConfigFile> open_if_there(const std::filesystem::path& path) {
    if (!is_there(path)) return {};
    return ConfigFile::open(path);
  }

  void read_list(const ConfigFile& file) {
    const auto& path = file.path();
    const auto& list = file.json().at("added_tokens");
    if (!list.is_array())
      throw FileError(concat(path.string(), ": field \"added_tokens\": expected a list, found ", list.type_name()));
    for (const auto& entry : list) {
      const auto content = detail::token_content(entry);
      if (!entry.is_object() || !content || !entry.contains("id"))
        throw FileError(
            concat(path.string(), ": field \"added_tokens\": expected objects with \"id\" and \"content\""));
      add(path, "added_tokens", *content, entry.at("id"), entry);
    }
  }

  void read_decoder(const ConfigFile& file) {
    const auto& path = file.path();
    const auto& tokens = file.json().at(decoder);
    if (!tokens.is_object())
      throw FileError(
          concat(path.string(), ": field \"", decoder, "\": expected an object, found ", tokens.type_name()));
    for (const auto& [key, value] : tokens.items()) {
      const auto content = detail::token_content(value);
      const bool number = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
      if (!content || !number)
        throw FileError(concat(path.string(), ": field \"", decoder, "\": expected ids with \"content\", found '",
                               key.substr(0, 40), "'"));
      add(path, decoder, *content, std::stoull(key), value);
    }
  }

  void add(const std::filesystem::path& path, const char* field, const std::string& content, const nlohmann::json& id,
           const nlohmann::json& flags) {
    const auto fail = [&](const std::string& what) {
      throw FileError(concat(path.string(), ": field \"", field, "\": token '", content.substr(0, 40), "': ", what));
    };
    if (content.empty()) fail("expected some text");
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= limit_)
      fail(concat("expected an id from 0 to ", limit_ - 1));
    LiteralToken token{{content, id.get<std::int32_t>()}};
    if (flags.is_object()) read_flags(path, field, flags, token);
    for (LiteralToken& each : tokens_) {
      if ((each.content == content) != (each.id == token.id)) fail(concat("id ", each.id, " belongs to two tokens"));
      if (each.content != content) continue;
      each = token;
      return;
    }
    if (tokens_.size() == most_added) fail(concat("expected at most ", most_added, " added tokens"));
    tokens_.push_back(std::move(token));
  }

  static void read_flags(const std::filesystem::path& path, const char* field, const nlohmann::json& from,
                         LiteralToken& token) {
    const auto flag = [&](const char* name) {
      if (!from.contains(name)) return false;
      if (!from.at(name).is_boolean())
        throw FileError(concat(path.string(), ": field \"", field, "\": token '", token.content.substr(0, 40), "': \"",
                               name, "\": expected true or false, found ", from.at(name).type_name()));
      return from.at(name).get<bool>();
    };
    if (flag("normalized")) token.search = LiteralToken::Search::normalized_text;
    if (flag("single_word")) token.place = LiteralToken::Place::between_words;
  }

  std::size_t limit_;
  std::vector<LiteralToken> tokens_;
};

}  // namespace ebb::examples
