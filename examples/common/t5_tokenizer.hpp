#pragma once

#include <sentencepiece_processor.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/added_tokens.hpp"
#include "common/precompiled_charsmap.hpp"
#include "common/tokenizer.hpp"
#include "common/unicode.hpp"
#include "common/unigram_model.hpp"

namespace ebb::examples {

/// The T5 tokenizer of transformers, for T5 and UMT5: literal special tokens ("</s>", "<extra_id_0>") are taken out of
/// the text, the rest is normalized, split at white space, and each word, behind a U+2581, is cut into pieces by the
/// SentencePiece library's unigram search. Reads `tokenizer.json`, or where there is none `spiece.model`, as the fast
/// tokenizers of transformers do.
///
/// Unknown text gets the id that the file says, UMT5's being 3. transformers 5 gives it 2, UMT5's begin token, where it
/// rebuilds the tokenizer as its class T5Tokenizer.
class T5Tokenizer {
 public:
  /// @throws FileError for missing or malformed files: names file and field
  static T5Tokenizer load(const std::filesystem::path& directory) {
    const bool spiece = !is_there(directory / "tokenizer.json");
    const auto path = directory / (spiece ? "spiece.model" : "tokenizer.json");
    if (!is_there(path)) throw FileError(concat(directory.string(), ": expected tokenizer.json or spiece.model"));
    T5Tokenizer tokenizer;
    auto model = spiece ? UnigramModel::from_spiece(path) : UnigramModel::from_tokenizer_json(path);
    if (spiece) add_extra_ids(directory, model);
    tokenizer.charsmap_ = PrecompiledCharsmap(model.charsmap, path.string());
    tokenizer.load_pieces(path, model);
    if (model.uncovered == UnigramModel::Uncovered::bytes) tokenizer.find_bytes(path, model);
    tokenizer.read_literals(directory, model);
    return tokenizer;
  }

  /// Ids of `text` and the end token, truncated and padded to `length`.
  Encoding encode(std::string_view text, std::size_t length) const {
    if (length < 1) throw ConfigError("T5: expected a length of at least 1 token, found 0");
    std::vector<std::int32_t> pieces;
    const auto keep = [&](std::int32_t id) { pieces.push_back(id); };
    raw_literals_.split(
        detail::valid_utf8(text),
        [&](std::string_view raw) {
          normalized_literals_.split(
              charsmap_.normalize(raw), [&](std::string_view piece) { encode_plain(piece, pieces); }, keep);
        },
        keep);
    Encoding encoding;
    if (pieces.size() > length - 1) {
      for (std::size_t i = length - 1; i < pieces.size(); ++i)
        if (pieces[i] < model_->GetPieceSize()) encoding.truncated_text += model_->IdToPiece(pieces[i]);
      encoding.truncated_text = replaced(encoding.truncated_text, blank, " ");
      pieces.resize(length - 1);
    }
    encoding.ids = std::move(pieces);
    encoding.ids.push_back(end_);
    encoding.length = encoding.ids.size();
    encoding.ids.resize(length, padding_);
    return encoding;
  }

 private:
  static constexpr std::string_view blank = "\xe2\x96\x81";  // U+2581 stands for a blank

  static std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
    std::string result;
    for (std::size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
      result.append(text.substr(0, at)).append(to);
      text.remove_prefix(at + from.size());
    }
    return result.append(text);
  }

  /// Every word begins with a U+2581; one inside of it begins another, as in transformers' Metaspace.
  void encode_plain(std::string_view text, std::vector<std::int32_t>& out) const {
    for_each_word(text, [&](std::string_view word) {
      while (!word.empty()) {
        const bool marked = word.starts_with(blank);
        const std::size_t end = word.find(blank, marked ? blank.size() : 0);
        const std::string_view piece = word.substr(0, end);
        encode_word(marked ? std::string(piece) : std::string(blank).append(piece), out);
        word.remove_prefix(piece.size());
      }
    });
  }
  void encode_word(const std::string& word, std::vector<std::int32_t>& out) const {
    if (!bytes_.empty()) return encode_word_with_bytes(word, out);
    std::vector<int> ids;
    const auto status = model_->Encode(word, &ids);
    if (!status.ok()) throw ConfigError(concat("T5: the prompt cannot be encoded: ", status.ToString()));
    out.insert(out.end(), ids.begin(), ids.end());
  }

  void encode_word_with_bytes(const std::string& word, std::vector<std::int32_t>& out) const {
    const auto encoded = model_->EncodeAsImmutableProto(word);
    for (std::size_t i = 0; i < encoded.pieces_size(); ++i) {
      const auto piece = encoded.pieces(static_cast<int>(i));
      const auto id = static_cast<std::int32_t>(piece.id());
      if (model_->IsUnknown(id))
        for (const char byte : piece.surface()) out.push_back(bytes_[static_cast<unsigned char>(byte)]);
      else
        out.push_back(id);
    }
  }

  /// The pieces "<0x00>" to "<0xFF>".
  void find_bytes(const std::filesystem::path& path, const UnigramModel& model) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::string text{'<', '0', 'x', digits[byte / 16], digits[byte % 16], '>'};
      bytes_.push_back(model.find(text));
      if (bytes_.back() < 0)
        throw FileError(
            concat(path.string(), ": field \"model.byte_fallback\" is true, but there is no piece '", text, "'"));
    }
  }

  void load_pieces(const std::filesystem::path& path, const UnigramModel& model) {
    std::string refused;
    try {
      const auto status = model_->LoadFromSerializedProto(model.serialized());
      if (!status.ok()) refused = status.ToString();
    } catch (const std::exception& error) {
      refused = error.what();
    }
    if (!refused.empty()) throw FileError(concat(path.string(), ": is refused by SentencePiece: ", refused));
  }

  /// A spiece.model has no extra ids: they follow its pieces, <extra_id_0> last.
  static void add_extra_ids(const std::filesystem::path& directory, UnigramModel& model) {
    std::size_t extra_ids = 100;
    if (const auto path = directory / "tokenizer_config.json"; is_there(path)) {
      const auto file = ConfigFile::open(path);
      if (file.has("extra_ids")) {
        const auto& value = file.json().at("extra_ids");
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() > LiteralTokenFiles::most_added)
          throw FileError(concat(path.string(), ": field \"extra_ids\": expected a whole number from 0 to ",
                                 LiteralTokenFiles::most_added));
        extra_ids = value.get<std::size_t>();
      }
    }
    for (std::size_t left = extra_ids; left > 0; --left) {
      const std::string text = "<extra_id_" + std::to_string(left - 1) + ">";
      if (model.find(text) < 0) model.pieces.push_back({text, 0});
    }
  }

  /// The tokens that the files list, T5's three special ones and the extra ids.
  void read_literals(const std::filesystem::path& directory, const UnigramModel& model) {
    auto tokens = LiteralTokenFiles::read(directory, model.pieces.size());
    const auto listed = [&](std::string_view content) {
      for (const LiteralToken& token : tokens)
        if (token.content == content) return token.id;
      return std::int32_t{-1};
    };
    for (const LiteralToken& token : tokens)
      if (const std::int32_t id = model.find(token.content); id >= 0 && id != token.id)
        throw FileError(concat(directory.string(), ": added token '", token.content, "': id ", token.id,
                               ", but the vocabulary says ", id));
    std::size_t extra_ids = 0;
    for (std::size_t id = 0; id < model.pieces.size(); ++id) {
      if (!model.pieces[id].text.starts_with("<extra_id_")) continue;
      if (++extra_ids > LiteralTokenFiles::most_added)
        throw FileError(concat(directory.string(), ": expected at most ", LiteralTokenFiles::most_added,
                               " pieces that begin with <extra_id_"));
      if (listed(model.pieces[id].text) < 0) tokens.push_back({{model.pieces[id].text, static_cast<std::int32_t>(id)}});
    }
    constexpr const char* fields[]{"eos_token", "unk_token", "pad_token"};
    constexpr const char* contents[]{"</s>", "<unk>", "<pad>"};
    for (std::size_t i = 0; i < 3; ++i) {
      LiteralToken token = LiteralTokenFiles::named(directory, fields[i]).value_or(LiteralToken{{contents[i], -1}});
      const std::int32_t known = listed(token.content);
      token.id = known >= 0 ? known : model.find(token.content);
      if (token.id < 0)
        throw FileError(concat(directory.string(), ": ", fields[i], " '", token.content, "' is not in the vocabulary"));
      if (i == 0) end_ = token.id;
      if (i == 2) padding_ = token.id;
      if (known < 0) tokens.push_back(std::move(token));
    }
    for (LiteralToken& token : tokens) {
      if (token.search == LiteralToken::Search::normalized_text) {
        token.content = charsmap_.normalize(token.content);
        normalized_literals_.add(std::move(token));
      } else {
        raw_literals_.add(std::move(token));
      }
    }
  }

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_ =
      std::make_unique<sentencepiece::SentencePieceProcessor>();
  PrecompiledCharsmap charsmap_;
  LiteralTokens raw_literals_, normalized_literals_;
  std::vector<std::int32_t> bytes_;  // the ids of the 256 byte pieces, where they stand for text that no piece covers
  std::int32_t end_ = 1, padding_ = 0;
};

}  // namespace ebb::examples
