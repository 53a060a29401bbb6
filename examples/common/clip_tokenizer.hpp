#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <queue>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/added_tokens.hpp"
#include "common/tokenizer.hpp"
#include "common/unicode.hpp"

namespace ebb::examples {

/// CLIPTokenizer of transformers: NFC, white space to one blank, lower case, then byte-level byte-pair encoding of the
/// pieces that its regular expression finds, with "</w>" at the end of each. Reads `vocab.json` and `merges.txt`
/// (transformers 4) or `tokenizer.json` (transformers 5).
class ClipTokenizer {
 public:
  /// @throws FileError for missing or malformed files: names file and field
  static ClipTokenizer load(const std::filesystem::path& directory) {
    ClipTokenizer tokenizer;
    if (is_there(directory / "vocab.json") && is_there(directory / "merges.txt"))
      tokenizer.read_vocabulary_and_merges(directory);
    else if (is_there(directory / "tokenizer.json"))
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
    const auto keep = [&](std::int32_t id) { pieces.push_back(id); };
    raw_literals_.split(
        detail::valid_utf8(text),
        [&](std::string_view raw) {
          normalized_literals_.split(
              normalized(raw), [&](std::string_view piece) { encode_plain(piece, pieces); }, keep);
        },
        keep);
    Encoding encoding;
    if (pieces.size() > length - 2) {
      for (std::size_t i = length - 2; i < pieces.size(); ++i) encoding.truncated_text += spelling(pieces[i]);
      pieces.resize(length - 2);
    }
    encoding.ids.reserve(length);
    encoding.ids.push_back(begin_);
    encoding.ids.insert(encoding.ids.end(), pieces.begin(), pieces.end());
    encoding.ids.push_back(end_);
    encoding.length = encoding.ids.size();
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
  static constexpr std::size_t usual_length = 77;

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
    const Merge merge{rank, known(path, left + right, rank)};
    if (!merges_.emplace(Pair{known(path, left, rank), known(path, right, rank)}, merge).second)
      throw FileError(concat(path.string(), ": merge ", rank, ": '", left, "' and '", right, "' are joined twice"));
  }

  void read_vocabulary_and_merges(const std::filesystem::path& directory) {
    const auto vocabulary = ConfigFile::open(directory / "vocab.json");
    add_vocabulary(vocabulary.path(), vocabulary.json());
    const auto path = directory / "merges.txt";
    std::istringstream stream(read_text(path, most_text_bytes, "merges"));
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
  }

  void read_tokenizer_json(const std::filesystem::path& path) {
    const auto file = ConfigFile::open(path);
    const auto& json = file.json();
    if (!file.has("model") || !json.at("model").is_object())
      throw FileError(concat(path.string(), ": field \"model\": expected an object"));
    const auto& model = json.at("model");
    if (!model.contains("type") || model.at("type") != "BPE")
      throw FileError(concat(path.string(), ": field \"model.type\": expected \"BPE\""));
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
  }

  void finish(const std::filesystem::path& directory) {
    auto tokens = LiteralTokenFiles::read(directory, ids_.size());
    for (const LiteralToken& token : tokens)
      if (const auto at = ids_.find(token.content); at != ids_.end() && at->second != token.id)
        throw FileError(concat(directory.string(), ": added token '", token.content, "': id ", token.id,
                               ", but the vocabulary says ", at->second));
    const std::size_t listed = tokens.size();
    // A token that the files name twice keeps the flags of its last name.
    const auto named = [&](const char* field, const char* otherwise) {
      LiteralToken token = LiteralTokenFiles::named(directory, field).value_or(LiteralToken{{otherwise, -1}});
      for (std::size_t i = 0; i < listed; ++i)
        if (tokens[i].content == token.content) return tokens[i].id;
      const auto at = ids_.find(token.content);
      if (at == ids_.end())
        throw FileError(concat(directory.string(), ": ", field, " '", token.content, "' is not in the vocabulary"));
      token.id = at->second;
      tokens.push_back(std::move(token));
      return at->second;
    };
    begin_ = named("bos_token", "<|startoftext|>");
    end_ = named("eos_token", "<|endoftext|>");
    unknown_ = named("unk_token", "<|endoftext|>");
    padding_ = named("pad_token", "<|endoftext|>");
    for (LiteralToken& token : tokens) tokens_.emplace(token.id, token.content);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto later = [&](const LiteralToken& each) { return each.content == tokens[i].content; };
      if (std::any_of(tokens.begin() + static_cast<std::ptrdiff_t>(i) + 1, tokens.end(), later)) continue;
      LiteralToken token = tokens[i];
      if (token.search == LiteralToken::Search::normalized_text) {
        token.content = normalized(token.content);
        normalized_literals_.add(std::move(token));
      } else {
        raw_literals_.add(std::move(token));
      }
    }
    read_length(directory / "tokenizer_config.json");
    // GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for a letter from U+0100 on.
    std::uint32_t next = 256;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const std::uint32_t code = printable ? byte : next++;
      letters_[byte] = code < 0x80
                           ? std::string(1, static_cast<char>(code))
                           : std::string{static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
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

  /// Files say 1e30 for "no limit", which the position embeddings of CLIP do not allow.
  void read_length(const std::filesystem::path& path) {
    if (!is_there(path)) return;
    const auto file = ConfigFile::open(path);
    if (!file.has("model_max_length")) return;
    const auto& value = file.json().at("model_max_length");
    if (!value.is_number() || !(value.get<double>() >= 2))
      throw FileError(concat(path.string(), ": field \"model_max_length\": expected a number of at least 2, found ",
                             value.is_number() ? std::to_string(value.get<double>()) : value.type_name()));
    if (value.get<double>() <= 1u << 20) model_max_length_ = value.get<std::size_t>();
  }

  // ---- text

  /// `text` after NFC and lower-casing, letter by letter, as the tokenizers library does.
  static std::string normalized(std::string_view text) {
    utf8proc_uint8_t* raw = nullptr;
    const utf8proc_ssize_t size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                     &raw, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
    if (size < 0) throw ConfigError(concat("CLIP: the prompt cannot be normalized: ", utf8proc_errmsg(size)));
    std::string result;
    for (std::string_view rest(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size)); !rest.empty();) {
      const CodePoint next = first_code_point(rest);
      rest.remove_prefix(next.bytes);
      // U+0130 is the only letter whose lower case is two code points.
      append_utf8(next.code == 0x130 ? 'i' : utf8proc_tolower(next.code), result);
      if (next.code == 0x130) append_utf8(0x307, result);
    }
    return result;
  }

  /// The pieces that CLIP's expression finds: special tokens, contractions, runs of letters, single numbers, runs of
  /// anything else.
  void encode_plain(std::string_view text, std::vector<std::int32_t>& out) const {
    std::vector<std::int32_t> codes;
    for (std::string_view rest = text; !rest.empty();) {
      const CodePoint next = first_code_point(rest);
      codes.push_back(next.code);
      rest.remove_prefix(next.bytes);
    }
    const auto starts_with = [&](std::size_t at, std::string_view ascii) {
      if (at + ascii.size() > codes.size()) return false;
      for (std::size_t i = 0; i < ascii.size(); ++i)
        if (codes[at + i] != static_cast<unsigned char>(ascii[i])) return false;
      return true;
    };
    constexpr std::array<std::string_view, 9> literals{
        "<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (std::size_t at = 0; at < codes.size();) {
      const auto literal =
          std::find_if(literals.begin(), literals.end(), [&](std::string_view each) { return starts_with(at, each); });
      std::size_t end = at;
      if (literal != literals.end()) {
        end = at + literal->size();
      } else {
        const TextKind kind = kind_of(codes[at]);
        ++end;
        if (kind == TextKind::blank) {
          at = end;
          continue;
        }
        if (kind != TextKind::number)
          while (end < codes.size() && kind_of(codes[end]) == kind) ++end;
      }
      byte_level(codes, at, end, out);
      at = end;
    }
  }

  /// The ByteLevel pre-tokenizer that follows splits a piece once more, by GPT-2's expression: a contraction, a run of
  /// letters, of numbers, or of anything else.
  void byte_level(const std::vector<std::int32_t>& codes, std::size_t begin, std::size_t end,
                  std::vector<std::int32_t>& out) const {
    std::string word;
    const auto flush = [&] {
      if (!word.empty()) encode_word(word, out);
      word.clear();
    };
    TextKind previous = TextKind::blank;
    for (std::size_t at = begin; at < end; ++at) {
      const TextKind kind = kind_of(codes[at]);
      const bool contraction = begin == at && codes[at] == '\'' && end - begin > 1 && end - begin <= 3 &&
                               kind_of(codes[at + 1]) == TextKind::letter;
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
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>
        queue;  // rank, position, left, right, result
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
  LiteralTokens raw_literals_, normalized_literals_;
  std::array<std::string, 256> letters_;
  std::array<std::int32_t, 256> inside_{}, last_{};
  std::int32_t begin_ = 0, end_ = 0, unknown_ = 0, padding_ = 0;
  std::size_t model_max_length_ = usual_length;
};

}  // namespace ebb::examples
