#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/tokenizer.hpp"

namespace ebb::examples {

/// CLIPTokenizer of transformers: NFC, white space to one blank, lower case, then byte-level byte-pair encoding of the
/// pieces that its regular expression finds, with "</w>" at the end of each. Reads `vocab.json` and `merges.txt`
/// (transformers 4) or `tokenizer.json` (transformers 5).
class ClipTokenizer {
 public:
  /// @throws FileError for missing or malformed files: names file and field
  static ClipTokenizer load(const std::filesystem::path& directory) {
    ClipTokenizer tokenizer;
    if (std::filesystem::exists(directory / "vocab.json") && std::filesystem::exists(directory / "merges.txt"))
      tokenizer.read_vocabulary_and_merges(directory);
    else if (std::filesystem::exists(directory / "tokenizer.json"))
      tokenizer.read_tokenizer_json(directory / "tokenizer.json");
    else
      throw FileError(concat(directory.string(), ": expected vocab.json and merges.txt, or tokenizer.json"));
    tokenizer.finish(directory);
    return tokenizer;
  }

  /// Ids of `text` between begin and end tokens, truncated and padded to `length`.
  Encoding encode(std::string_view text, std::size_t length) const {
    if (length < 2) throw ConfigError(concat("CLIP: expected a length of at least 2 tokens, found ", length));
    std::vector<std::int32_t> pieces;
    detail::split_at_added_tokens(
        detail::valid_utf8(text), added_, [&](std::string_view piece) { encode_plain(piece, pieces); },
        [&](std::int32_t id) { pieces.push_back(id); });
    Encoding encoding;
    if (pieces.size() > length - 2) {
      for (std::size_t i = length - 2; i < pieces.size(); ++i) encoding.truncated_text += spelling(pieces[i]);
      pieces.resize(length - 2);
    }
    encoding.ids.reserve(length);
    encoding.ids.push_back(begin_);
    encoding.ids.insert(encoding.ids.end(), pieces.begin(), pieces.end());
    encoding.ids.push_back(end_);
    encoding.ids.resize(length, padding_);
    return encoding;
  }

  std::size_t model_max_length() const { return model_max_length_; }

 private:
  using Pair = std::pair<std::int32_t, std::int32_t>;
  struct PairHash {
    std::size_t operator()(const Pair& pair) const {
      return std::hash<std::uint64_t>{}(static_cast<std::uint64_t>(static_cast<std::uint32_t>(pair.first)) << 32 |
                                        static_cast<std::uint32_t>(pair.second));
    }
  };
  struct Merge {
    std::size_t rank;
    std::int32_t result;
  };

  // ---- files

  static constexpr std::size_t most_tokens = 1u << 24;

  void add_vocabulary(const std::filesystem::path& path, const nlohmann::json& vocabulary) {
    if (!vocabulary.is_object() || vocabulary.empty())
      throw FileError(concat(path.string(), ": expected a vocabulary that maps tokens to ids"));
    std::vector<char> seen(vocabulary.size() + 4096, 0);
    for (const auto& [token, id] : vocabulary.items()) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= std::min(seen.size(), most_tokens))
        throw FileError(concat(path.string(), ": token '", token, "': expected an id from 0 to ", seen.size() - 1));
      const auto value = id.get<std::int32_t>();
      if (seen[static_cast<std::size_t>(value)]++)
        throw FileError(concat(path.string(), ": id ", value, " is used twice"));
      ids_.emplace(token, value);
    }
  }

  std::int32_t known(const std::filesystem::path& path, const std::string& token, std::size_t rank) const {
    const auto at = ids_.find(token);
    if (at == ids_.end())
      throw FileError(concat(path.string(), ": merge ", rank, ": token '", token, "' is not in the vocabulary"));
    return at->second;
  }
  void add_merge(const std::filesystem::path& path, const std::string& left, const std::string& right) {
    const std::size_t rank = merges_.size();
    merges_.emplace(Pair{known(path, left, rank), known(path, right, rank)},
                    Merge{rank, known(path, left + right, rank)});
  }

  void read_vocabulary_and_merges(const std::filesystem::path& directory) {
    const auto vocabulary = ConfigFile::open(directory / "vocab.json");
    add_vocabulary(vocabulary.path(), vocabulary.json());
    const auto path = directory / "merges.txt";
    std::ifstream stream(path);
    std::string line;
    bool first = true;
    while (std::getline(stream, line)) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (std::exchange(first, false) && line.starts_with("#version")) continue;
      if (line.empty()) continue;
      const std::size_t blank = line.find(' ');
      if (blank == std::string::npos || blank == 0 || blank + 1 == line.size() ||
          line.find(' ', blank + 1) != std::string::npos)
        throw FileError(concat(path.string(), ": merge ", merges_.size(), ": expected two tokens, found '",
                               line.substr(0, 80), "'"));
      add_merge(path, line.substr(0, blank), line.substr(blank + 1));
    }
    if (!stream.eof()) throw FileError(concat(path.string(), ": cannot be read"));
  }

  void read_tokenizer_json(const std::filesystem::path& path) {
    const auto file = ConfigFile::open(path);
    const auto& json = file.json();
    if (!file.has("model") || !json.at("model").is_object() || json.at("model").value("type", "") != "BPE")
      throw FileError(concat(path.string(), ": field \"model\": expected an object of type \"BPE\""));
    const auto& model = json.at("model");
    if (!model.contains("vocab") || !model.contains("merges") || !model.at("merges").is_array())
      throw FileError(concat(path.string(), ": field \"model\": expected \"vocab\" and a list \"merges\""));
    add_vocabulary(path, model.at("vocab"));
    for (const auto& merge : model.at("merges")) {
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        add_merge(path, merge[0].get<std::string>(), merge[1].get<std::string>());
        continue;
      }
      const std::string text = merge.is_string() ? merge.get<std::string>() : "";
      const std::size_t blank = text.find(' ');
      if (blank == std::string::npos || blank == 0 || blank + 1 == text.size())
        throw FileError(concat(path.string(), ": merge ", merges_.size(), ": expected two tokens"));
      add_merge(path, text.substr(0, blank), text.substr(blank + 1));
    }
    added_ = detail::added_tokens(file);
  }

  void finish(const std::filesystem::path& directory) {
    const auto id_of = [&](const char* field, const char* otherwise) {
      const std::string content = detail::token_field(directory, field).value_or(otherwise);
      for (const AddedToken& token : added_)
        if (token.content == content) return token.id;
      const auto at = ids_.find(content);
      if (at == ids_.end())
        throw FileError(concat(directory.string(), ": ", field, " '", content, "' is not in the vocabulary"));
      if (!content.empty()) added_.push_back({content, at->second});
      return at->second;
    };
    begin_ = id_of("bos_token", "<|startoftext|>");
    end_ = id_of("eos_token", "<|endoftext|>");
    unknown_ = id_of("unk_token", "<|endoftext|>");
    // A pad token that is an ordinary word of the vocabulary ("!") is not looked for in the text.
    const std::size_t special = added_.size();
    padding_ = id_of("pad_token", "<|endoftext|>");
    added_.resize(special);
    if (const auto path = directory / "tokenizer_config.json"; std::filesystem::exists(path))
      if (const auto file = ConfigFile::open(path); file.has("model_max_length"))
        model_max_length_ = file.size("model_max_length", 2, 1u << 20);
    // GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for a letter from U+0100 on.
    std::uint32_t next = 256;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const std::uint32_t code = printable ? byte : next++;
      letters_[byte] = code < 0x80 ? std::string(1, static_cast<char>(code))
                                   : std::string{static_cast<char>(0xc0 | code >> 6),
                                                 static_cast<char>(0x80 | (code & 0x3f))};
    }
    for (const auto& [token, id] : ids_) tokens_.emplace(id, token);
    const auto lookup = [&](const std::string& token) {
      const auto at = ids_.find(token);
      return at == ids_.end() ? unknown_ : at->second;
    };
    for (std::size_t byte = 0; byte < 256; ++byte) {
      inside_[byte] = lookup(letters_[byte]);
      last_[byte] = lookup(letters_[byte] + "</w>");
    }
  }

  // ---- text

  enum class Kind { blank, letter, number, other };

  static Kind kind_of(utf8proc_int32_t code) {
    if (code == ' ' || (code >= 9 && code <= 13) || code == 0x85) return Kind::blank;
    switch (utf8proc_category(code)) {
      case UTF8PROC_CATEGORY_LU:
      case UTF8PROC_CATEGORY_LL:
      case UTF8PROC_CATEGORY_LT:
      case UTF8PROC_CATEGORY_LM:
      case UTF8PROC_CATEGORY_LO:
        return Kind::letter;
      case UTF8PROC_CATEGORY_ND:
      case UTF8PROC_CATEGORY_NL:
      case UTF8PROC_CATEGORY_NO:
        return Kind::number;
      case UTF8PROC_CATEGORY_ZS:
      case UTF8PROC_CATEGORY_ZL:
      case UTF8PROC_CATEGORY_ZP:
        return Kind::blank;
      default:
        return Kind::other;
    }
  }

  /// Code points of `text` after NFC and lower-casing, letter by letter, as the tokenizers library does.
  static std::vector<utf8proc_int32_t> normalized(std::string_view text) {
    utf8proc_uint8_t* raw = nullptr;
    const utf8proc_ssize_t size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                     &raw, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
    if (size < 0) throw ConfigError(concat("CLIP: the prompt cannot be normalized: ", utf8proc_errmsg(size)));
    std::vector<utf8proc_int32_t> codes;
    for (utf8proc_ssize_t at = 0; at < size;) {
      utf8proc_int32_t code = 0;
      const utf8proc_ssize_t step = utf8proc_iterate(raw + at, size - at, &code);
      if (step <= 0) break;
      at += step;
      if (code == 0x130) {  // the only letter whose lower case is two code points
        codes.push_back('i');
        codes.push_back(0x307);
      } else {
        codes.push_back(utf8proc_tolower(code));
      }
    }
    return codes;
  }

  /// The pieces that CLIP's expression finds: special tokens, contractions, runs of letters, single numbers, runs of
  /// anything else.
  void encode_plain(std::string_view text, std::vector<std::int32_t>& out) const {
    const auto codes = normalized(text);
    const auto starts_with = [&](std::size_t at, std::string_view ascii) {
      if (at + ascii.size() > codes.size()) return false;
      for (std::size_t i = 0; i < ascii.size(); ++i)
        if (codes[at + i] != static_cast<unsigned char>(ascii[i])) return false;
      return true;
    };
    constexpr std::array<std::string_view, 9> literals{"<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re",
                                                       "'ve",             "'m",            "'ll", "'d"};
    for (std::size_t at = 0; at < codes.size();) {
      const auto literal =
          std::find_if(literals.begin(), literals.end(), [&](std::string_view each) { return starts_with(at, each); });
      std::size_t end = at;
      if (literal != literals.end()) {
        end = at + literal->size();
      } else {
        const Kind kind = kind_of(codes[at]);
        ++end;
        if (kind == Kind::blank) {
          at = end;
          continue;
        }
        if (kind != Kind::number)
          while (end < codes.size() && kind_of(codes[end]) == kind) ++end;
      }
      byte_level(codes, at, end, out);
      at = end;
    }
  }

  /// The ByteLevel pre-tokenizer that follows splits a piece once more, by GPT-2's expression: a contraction, a run of
  /// letters, of numbers, or of anything else.
  void byte_level(const std::vector<utf8proc_int32_t>& codes, std::size_t begin, std::size_t end,
                  std::vector<std::int32_t>& out) const {
    std::string word;
    const auto flush = [&] {
      if (!word.empty()) encode_word(word, out);
      word.clear();
    };
    Kind previous = Kind::blank;
    for (std::size_t at = begin; at < end; ++at) {
      const Kind kind = kind_of(codes[at]);
      const bool contraction = begin == at && codes[at] == '\'' && end - begin > 1 && end - begin <= 3 &&
                               kind_of(codes[at + 1]) == Kind::letter;
      if (contraction) {
        for (; at < end; ++at) append_utf8(codes[at], word);
        break;
      }
      if (kind != previous) flush();
      previous = kind;
      append_utf8(codes[at], word);
    }
    flush();
  }

  static void append_utf8(utf8proc_int32_t code, std::string& text) {
    std::array<utf8proc_uint8_t, 4> bytes{};
    const utf8proc_ssize_t count = utf8proc_encode_char(code, bytes.data());
    text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(count));
  }

  /// Byte-pair encoding: the pair of lowest rank is joined first, the leftmost of equals. O(n log n).
  void encode_word(const std::string& word, std::vector<std::int32_t>& out) const {
    struct Symbol {
      std::int32_t id;
      std::size_t previous, next;
    };
    constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
    std::vector<Symbol> symbols(word.size());
    for (std::size_t i = 0; i < word.size(); ++i) {
      const auto byte = static_cast<unsigned char>(word[i]);
      symbols[i] = {i + 1 == word.size() ? last_[byte] : inside_[byte], i == 0 ? none : i - 1,
                    i + 1 == word.size() ? none : i + 1};
    }
    using Candidate = std::tuple<std::size_t, std::size_t, std::int32_t, std::int32_t, std::int32_t>;
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;  // rank, position, left, right, result
    const auto propose = [&](std::size_t at) {
      if (at == none || symbols[at].next == none) return;
      const Pair pair{symbols[at].id, symbols[symbols[at].next].id};
      if (const auto merge = merges_.find(pair); merge != merges_.end())
        queue.emplace(merge->second.rank, at, pair.first, pair.second, merge->second.result);
    };
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) propose(i);
    while (!queue.empty()) {
      const auto [rank, at, left, right, result] = queue.top();
      queue.pop();
      Symbol& symbol = symbols[at];
      if (symbol.id != left || symbol.next == none || symbols[symbol.next].id != right) continue;  // joined since
      Symbol& gone = symbols[symbol.next];
      symbol.id = result;
      gone.id = -1;
      symbol.next = gone.next;
      if (symbol.next != none) symbols[symbol.next].previous = at;
      propose(symbol.previous);
      propose(at);
    }
    for (const Symbol& symbol : symbols)
      if (symbol.id >= 0) out.push_back(symbol.id);
  }

  std::string spelling(std::int32_t id) const {
    const auto at = tokens_.find(id);
    if (at == tokens_.end()) return {};
    std::string text = at->second;
    const bool ends = text.ends_with("</w>");
    if (ends) text.resize(text.size() - 4);
    std::string bytes;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t length = (static_cast<unsigned char>(text[i]) & 0x80) ? 2 : 1;
      const auto letter = std::find(letters_.begin(), letters_.end(), text.substr(i, length));
      bytes += letter == letters_.end() ? text.substr(i, length)
                                        : std::string(1, static_cast<char>(letter - letters_.begin()));
      i += length;
    }
    return ends ? bytes + " " : bytes;
  }

  std::unordered_map<std::string, std::int32_t> ids_;
  std::unordered_map<std::int32_t, std::string> tokens_;
  std::unordered_map<Pair, Merge, PairHash> merges_;
  std::vector<AddedToken> added_;
  std::array<std::string, 256> letters_;
  std::array<std::int32_t, 256> inside_{}, last_{};
  std::int32_t begin_ = 0, end_ = 0, unknown_ = 0, padding_ = 0;
  std::size_t model_max_length_ = 77;
};

}  // namespace ebb::examples
