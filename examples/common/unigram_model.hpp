#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "common/protobuf.hpp"

namespace ebb::examples {

/// What the two file layouts of a SentencePiece unigram tokenizer have in common, checked: pieces with their scores,
/// and the compiled text normalization (`PrecompiledCharsmap`).
struct UnigramModel {
  struct Piece {
    std::string text;
    float score;
  };
  enum class Uncovered { unknown_piece, bytes };

  std::vector<Piece> pieces;  // by id
  std::size_t unknown = 0;    // id of the piece for text that no other one covers
  std::string charsmap;
  Uncovered uncovered = Uncovered::unknown_piece;  // what text that no piece covers becomes

  /// `spiece.model`. Its byte fallback is ignored, as transformers ignores it.
  /// @throws FileError for a file that is cut short, damaged, or no unigram model
  static UnigramModel from_spiece(const std::filesystem::path& path) {
    const std::string bytes = read_text(path, most_text_bytes, "a SentencePiece model");
    UnigramModel model;
    Parts parts;
    const auto whole = [&](const ProtoReader& reader, const char* part) {
      if (reader.damaged()) throw FileError(concat(path.string(), ": ", part, ": cut short or no SentencePiece model"));
    };
    ProtoReader file(bytes);
    while (const auto field = file.next()) {
      if (field->wire != ProtoField::Wire::bytes || field->number > 3) continue;
      ProtoReader part(field->bytes);
      if (field->number == 1) {
        model.read_piece(part, parts);
        whole(part, "a piece");
      } else if (field->number == 2) {
        parts.trainer = true;
        while (const auto entry = part.next())
          if (entry->number == 3 && entry->wire == ProtoField::Wire::varint) parts.kind = entry->value;
        whole(part, "trainer_spec");
      } else if (field->number == 3) {
        parts.normalizer = true;
        while (const auto entry = part.next())
          if (entry->number == 2 && entry->wire == ProtoField::Wire::bytes) model.charsmap = entry->bytes;
        whole(part, "normalizer_spec");
      }
    }
    whole(file, "the file");
    if (!parts.trainer || !parts.normalizer)
      throw FileError(concat(path.string(),
                             ": expected trainer_spec and normalizer_spec behind the pieces; the file "
                             "is cut short or no SentencePiece model"));
    if (parts.kind != 1)
      throw FileError(concat(path.string(), ": trainer_spec: expected model_type 1 (unigram), found ", parts.kind));
    if (parts.unknowns != 1)
      throw FileError(concat(path.string(), ": expected one piece of type UNKNOWN, found ", parts.unknowns));
    model.check(path);
    return model;
  }

  /// `tokenizer.json` with a model of type "Unigram". @throws FileError names the field
  static UnigramModel from_tokenizer_json(const std::filesystem::path& path) {
    const auto file = ConfigFile::open(path);
    const auto fail = [&](const std::string& what) { throw FileError(concat(path.string(), ": ", what)); };
    if (!file.has("model") || !file.json().at("model").is_object()) fail("field \"model\": expected an object");
    const auto& json = file.json().at("model");
    if (!json.contains("type") || json.at("type") != "Unigram") fail("field \"model.type\": expected \"Unigram\"");
    if (!json.contains("vocab") || !json.at("vocab").is_array()) fail("field \"model.vocab\": expected a list");
    const auto& vocabulary = json.at("vocab");
    if (!json.contains("unk_id") || !json.at("unk_id").is_number_unsigned() ||
        json.at("unk_id").get<std::uint64_t>() >= vocabulary.size())
      fail(concat("field \"model.unk_id\": expected the id of one of ", vocabulary.size(), " tokens"));
    UnigramModel model;
    model.unknown = json.at("unk_id").get<std::size_t>();
    if (json.contains("byte_fallback") && !json.at("byte_fallback").is_null()) {
      if (!json.at("byte_fallback").is_boolean()) fail("field \"model.byte_fallback\": expected true or false");
      if (json.at("byte_fallback").get<bool>()) model.uncovered = Uncovered::bytes;
    }
    for (const auto& entry : vocabulary) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        fail(concat("field \"model.vocab\": token ", model.pieces.size(), ": expected a pair of text and score"));
      const double score = entry[1].get<double>();
      if (!(std::abs(score) <= most_score))
        fail(concat("field \"model.vocab\": token ", model.pieces.size(), ": expected a score within ", most_score,
                    ", found ", score));
      model.pieces.push_back({entry[0].get<std::string>(), static_cast<float>(score)});
    }
    model.charsmap = charsmap_of(file);
    model.check(path);
    return model;
  }

  /// The id of a piece, or -1. O(pieces).
  std::int32_t find(std::string_view text) const {
    for (std::size_t id = 0; id < pieces.size(); ++id)
      if (pieces[id].text == text) return static_cast<std::int32_t>(id);
    return -1;
  }

  /// The same as a serialized SentencePiece model that takes text as it is. Every piece can be found in it, special
  /// ones too, as in transformers.
  std::string serialized() const {
    ProtoWriter model;
    for (std::size_t id = 0; id < pieces.size(); ++id) {
      ProtoWriter piece;
      piece.text(1, pieces[id].text);
      piece.real(2, pieces[id].score);
      piece.number(3, id == unknown ? 2 : 1);  // UNKNOWN or NORMAL
      model.text(1, piece.bytes());
    }
    ProtoWriter trainer;
    trainer.number(3, 1);  // unigram
    trainer.number(40, unknown);
    for (const unsigned field : {41u, 42u, 43u}) trainer.number(field, ~std::uint64_t{0});  // begin, end, padding: none
    model.text(2, trainer.bytes());
    ProtoWriter normalizer;
    normalizer.text(1, "identity");
    for (const unsigned field : {3u, 4u, 5u}) normalizer.number(field, 0);  // no blank in front, nothing replaced
    model.text(3, normalizer.bytes());
    return model.bytes();
  }

 private:
  static constexpr double most_score = 1e6;  // logarithms of probabilities

  struct Parts {
    bool trainer = false, normalizer = false;
    std::uint64_t kind = 1;
    std::size_t unknowns = 0;
  };

  void read_piece(ProtoReader& fields, Parts& parts) {
    Piece piece{{}, 0};
    while (const auto field = fields.next()) {
      if (field->number == 1 && field->wire == ProtoField::Wire::bytes) piece.text = field->bytes;
      if (field->number == 2 && field->wire == ProtoField::Wire::fixed32)
        piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
      if (field->number == 3 && field->wire == ProtoField::Wire::varint && field->value == 2) {
        unknown = pieces.size();
        ++parts.unknowns;
      }
    }
    pieces.push_back(std::move(piece));
  }

  void check(const std::filesystem::path& path) const {
    if (pieces.size() < 2 || pieces.size() > (1u << 24))
      throw FileError(concat(path.string(), ": expected from 2 to 16777216 pieces, found ", pieces.size()));
    std::unordered_set<std::string_view> seen;
    for (std::size_t id = 0; id < pieces.size(); ++id) {
      const auto fail = [&](const char* what) {
        throw FileError(concat(path.string(), ": piece ", id, " '",
                               pieces[id].text.substr(0, std::min<std::size_t>(40, pieces[id].text.find('\0'))),
                               "': ", what));
      };
      const Piece& piece = pieces[id];
      if (piece.text.empty() || piece.text.find('\0') != std::string::npos) fail("expected text without zero bytes");
      if (!(std::abs(piece.score) <= most_score)) fail("expected a finite score");
      if (!seen.insert(piece.text).second) fail("is there twice");
    }
  }

  /// "precompiled_charsmap" of the normalizer, alone or in a sequence; empty when there is none.
  static std::string charsmap_of(const ConfigFile& file) {
    if (!file.has("normalizer")) return {};
    const auto& normalizer = file.json().at("normalizer");
    if (!normalizer.is_object())
      throw FileError(
          concat(file.path().string(), ": field \"normalizer\": expected an object, found ", normalizer.type_name()));
    const auto of = [&](const nlohmann::json& each) -> std::string {
      if (!each.is_object() || !each.contains("precompiled_charsmap") || each.at("precompiled_charsmap").is_null())
        return {};
      const auto& map = each.at("precompiled_charsmap");
      if (!map.is_string())
        throw FileError(
            concat(file.path().string(), ": field \"precompiled_charsmap\": expected base64, found ", map.type_name()));
      return decode_base64(map.get_ref<const std::string&>(), file.path());
    };
    if (auto map = of(normalizer); !map.empty()) return map;
    if (normalizer.contains("normalizers") && normalizer.at("normalizers").is_array())
      for (const auto& each : normalizer.at("normalizers"))
        if (auto map = of(each); !map.empty()) return map;
    return {};
  }

  static std::string decode_base64(std::string_view text, const std::filesystem::path& path) {
    constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto fail = [&] { throw FileError(concat(path.string(), ": field \"precompiled_charsmap\" is not base64")); };
    if (text.size() % 4 != 0) fail();
    for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3);
    std::uint32_t buffer = 0;
    int bits = 0;
    for (const char letter : text) {
      const std::size_t value = alphabet.find(letter);
      if (value == std::string_view::npos) fail();
      buffer = buffer << 6 | static_cast<std::uint32_t>(value);
      bits += 6;
      if (bits >= 8) {
        bits -= 8;
        bytes.push_back(static_cast<char>(buffer >> bits));
      }
    }
    return bytes;
  }
};

}  // namespace ebb::examples
