#pragma once

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/tokenizer.hpp"

namespace ebb::examples {

namespace detail {

/// Just enough of the protocol-buffer wire format to describe a SentencePiece model.
class ProtoWriter {
 public:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  void number(unsigned field, std::uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void text(unsigned field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_.append(value);
  }
  void real(unsigned field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int byte = 0; byte < 4; ++byte) bytes_.push_back(static_cast<char>(bits >> (8 * byte)));
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// @throws FileError for anything that is not base64
inline std::string decode_base64(std::string_view text, const std::filesystem::path& path) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::string bytes;
  std::uint32_t buffer = 0;
  int bits = 0;
  for (const char letter : text) {
    const std::size_t value = alphabet.find(letter);
    if (value == std::string_view::npos)
      throw FileError(concat(path.string(), ": field \"precompiled_charsmap\" is not base64"));
    buffer = buffer << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<char>(buffer >> bits));
    }
  }
  return bytes;
}

}  // namespace detail

/// T5Tokenizer of transformers: a SentencePiece unigram model, run by the SentencePiece library. Reads `spiece.model`
/// (transformers 4) or `tokenizer.json` (transformers 5), which is turned into such a model in memory. Literal special
/// tokens in the text ("</s>", "<extra_id_0>") become those tokens, as in transformers.
///
/// One difference is known: transformers normalizes a base letter with several combining marks as a whole, the
/// SentencePiece library joins letter and first mark. It shows in text that stacks accents.
class T5Tokenizer {
 public:
  /// @throws FileError for missing or malformed files
  static T5Tokenizer load(const std::filesystem::path& directory) {
    T5Tokenizer tokenizer;
    if (const auto path = directory / "spiece.model"; std::filesystem::exists(path)) {
      const auto status = tokenizer.model_->Load(path.string());
      if (!status.ok()) throw FileError(concat(path.string(), ": no SentencePiece model: ", status.ToString()));
      tokenizer.read_added_tokens_4(directory);
    } else if (std::filesystem::exists(directory / "tokenizer.json")) {
      tokenizer.read_tokenizer_json(directory / "tokenizer.json");
    } else {
      throw FileError(concat(directory.string(), ": expected spiece.model or tokenizer.json"));
    }
    tokenizer.end_ = tokenizer.special(directory, "eos_token", "</s>");
    tokenizer.padding_ = tokenizer.special(directory, "pad_token", "<pad>");
    return tokenizer;
  }

  /// Ids of `text` and the end token, truncated and padded to `length`.
  Encoding encode(std::string_view text, std::size_t length) const {
    if (length < 1) throw ConfigError("T5: expected a length of at least 1 token, found 0");
    std::vector<std::int32_t> pieces;
    detail::split_at_added_tokens(
        detail::valid_utf8(text), added_,
        [&](std::string_view piece) {
          std::vector<int> ids;
          const auto status = model_->Encode(piece, &ids);
          if (!status.ok()) throw ConfigError(concat("T5: the prompt cannot be encoded: ", status.ToString()));
          pieces.insert(pieces.end(), ids.begin(), ids.end());
        },
        [&](std::int32_t id) { pieces.push_back(id); });
    Encoding encoding;
    if (pieces.size() > length - 1) {
      for (std::size_t i = length - 1; i < pieces.size(); ++i)
        if (pieces[i] < model_->GetPieceSize()) encoding.truncated_text += model_->IdToPiece(pieces[i]);
      replace_all(encoding.truncated_text, "\xe2\x96\x81", " ");
      pieces.resize(length - 1);
    }
    encoding.ids = std::move(pieces);
    encoding.ids.push_back(end_);
    encoding.ids.resize(length, padding_);
    return encoding;
  }

 private:
  static void replace_all(std::string& text, std::string_view from, std::string_view to) {
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  }

  std::int32_t special(const std::filesystem::path& directory, const char* field, const char* otherwise) const {
    const std::string content = detail::token_field(directory, field).value_or(otherwise);
    for (const AddedToken& token : added_)
      if (token.content == content) return token.id;
    const int id = model_->PieceToId(content);
    if (id < 0 || id >= model_->GetPieceSize() || model_->IdToPiece(id) != content)
      throw FileError(concat(directory.string(), ": ", field, " '", content, "' is not in the vocabulary"));
    return id;
  }

  /// transformers 4: control tokens of the model, and `added_tokens_decoder` of tokenizer_config.json; without it the
  /// 100 extra ids behind the model's pieces, <extra_id_0> last.
  void read_added_tokens_4(const std::filesystem::path& directory) {
    if (const auto path = directory / "tokenizer_config.json"; std::filesystem::exists(path)) {
      const auto file = ConfigFile::open(path);
      if (file.has("added_tokens_decoder")) {
        for (const auto& [key, value] : file.json().at("added_tokens_decoder").items()) {
          const auto content = detail::token_content(value);
          if (!content || content->empty() || key.empty() || key.size() > 9 ||
              key.find_first_not_of("0123456789") != std::string::npos)
            throw FileError(concat(path.string(), ": field \"added_tokens_decoder\": expected ids with \"content\""));
          added_.push_back({*content, std::stoi(key)});
        }
        return;
      }
    }
    for (const char* token : {"<pad>", "</s>", "<unk>"})
      if (const int id = model_->PieceToId(token); model_->IdToPiece(id) == token) added_.push_back({token, id});
    const int pieces = model_->GetPieceSize();
    for (int extra = 0; extra < 100; ++extra)
      added_.push_back({"<extra_id_" + std::to_string(extra) + ">", pieces + 99 - extra});
  }

  void read_tokenizer_json(const std::filesystem::path& path) {
    const auto file = ConfigFile::open(path);
    const auto fail = [&](const char* what) { throw FileError(concat(path.string(), ": ", what)); };
    if (!file.has("model") || !file.json().at("model").is_object()) fail("field \"model\" is missing");
    const auto& model = file.json().at("model");
    if (model.value("type", "") != "Unigram" || !model.contains("vocab") || !model.at("vocab").is_array() ||
        model.at("vocab").empty())
      fail("field \"model\": expected type \"Unigram\" and a list \"vocab\"");
    const auto& vocabulary = model.at("vocab");
    if (!model.contains("unk_id") || !model.at("unk_id").is_number_unsigned() ||
        model.at("unk_id").get<std::uint64_t>() >= vocabulary.size())
      fail("field \"unk_id\": expected the id of a token");
    const auto unknown = model.at("unk_id").get<std::size_t>();
    added_ = detail::added_tokens(file);
    enum : std::uint64_t { normal = 1, unknown_type = 2, control = 3, user_defined = 4 };
    detail::ProtoWriter proto;
    for (std::size_t id = 0; id < vocabulary.size(); ++id) {
      const auto& entry = vocabulary[id];
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        fail("field \"vocab\": expected pairs of token and score");
      const auto& content = entry[0].get_ref<const std::string&>();
      const bool special = std::any_of(added_.begin(), added_.end(),
                                       [&](const AddedToken& token) { return token.content == content; });
      detail::ProtoWriter piece;
      piece.text(1, content);
      piece.real(2, entry[1].get<float>());
      piece.number(3, id == unknown ? unknown_type : special ? control : normal);
      proto.text(1, piece.bytes());
    }
    detail::ProtoWriter trainer;
    trainer.number(3, 1);  // unigram
    trainer.number(40, unknown);
    const auto absent = static_cast<std::uint64_t>(std::int64_t{-1});
    for (const unsigned field : {41u, 42u, 43u}) trainer.number(field, absent);  // begin, end, padding: not used here
    proto.text(2, trainer.bytes());
    detail::ProtoWriter normalizer;
    if (const std::string map = charsmap(file); !map.empty()) normalizer.text(2, map);
    normalizer.number(3, 1);  // a blank in front
    normalizer.number(4, 1);  // runs of blanks become one
    normalizer.number(5, 1);  // blanks become U+2581
    proto.text(3, normalizer.bytes());
    const auto status = model_->LoadFromSerializedProto(proto.bytes());
    if (!status.ok()) throw FileError(concat(path.string(), ": is refused by SentencePiece: ", status.ToString()));
  }

  /// The compiled normalization of the first normalizer that has one, alone or in a sequence.
  static std::string charsmap(const ConfigFile& file) {
    if (!file.has("normalizer")) return {};
    const auto& normalizer = file.json().at("normalizer");
    const auto of = [&](const nlohmann::json& each) -> std::string {
      if (each.is_object() && each.contains("precompiled_charsmap") && each.at("precompiled_charsmap").is_string())
        return detail::decode_base64(each.at("precompiled_charsmap").get_ref<const std::string&>(), file.path());
      return {};
    };
    if (auto map = of(normalizer); !map.empty()) return map;
    if (normalizer.is_object() && normalizer.contains("normalizers") && normalizer.at("normalizers").is_array())
      for (const auto& each : normalizer.at("normalizers"))
        if (auto map = of(each); !map.empty()) return map;
    return {};
  }

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_ =
      std::make_unique<sentencepiece::SentencePieceProcessor>();
  std::vector<AddedToken> added_;
  std::int32_t end_ = 1, padding_ = 0;
};

}  // namespace ebb::examples
