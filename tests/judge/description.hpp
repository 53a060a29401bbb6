#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/core/error.hpp"
#include "judge/world.hpp"

namespace ebb::judge {

/// An object as it is asked for. Indices of the lists in world.hpp.
struct AskedObject {
  std::size_t shape = 0, colour = 0, size = 1, texture = 0;
};

struct AskedRelation {
  std::size_t subject = 0, relation = 0, object = 1;  // subject and object: indices of Description::objects
};

/// What must be seen in a picture.
struct Description {
  std::vector<AskedObject> objects;  // one to three
  std::vector<AskedRelation> relations;
  std::size_t ground_colour = 0, ground_pattern = 0;

  /// Reads what world.py wrote beside a picture. @throws FileError, ConfigError
  static Description read(const std::filesystem::path& path);

  /// The same from parsed JSON; `where` names it in messages. @throws ConfigError
  static Description from_json(const nlohmann::json& json, const std::string& where);

  /// Reads a caption of world.py's grammar. @throws ConfigError that names the word where it leaves the grammar
  static Description parse(std::string_view prompt);
};

namespace detail {

template <std::size_t Count>
std::string listed(const std::array<std::string_view, Count>& names) {
  std::string text;
  for (const std::string_view name : names) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

template <std::size_t Count>
std::size_t named_in(const std::string& where, const nlohmann::json& from, const char* field,
                     const std::array<std::string_view, Count>& names) {
  const auto at = from.is_object() ? from.find(field) : from.end();
  const std::size_t index =
      at != from.end() && at->is_string() ? index_of(names, at->template get<std::string>()) : no_name;
  if (index == no_name) throw ConfigError(concat(where, ": field \"", field, "\": expected one of ", listed(names)));
  return index;
}

/// A caption, word by word.
class Caption {
 public:
  explicit Caption(std::string_view text) {
    std::string spaced;
    for (const char c : text) c == ',' ? spaced.append(" , ") : spaced.append(1, c);
    std::istringstream stream(spaced);
    for (std::string word; stream >> word;) words_.push_back(word);
  }

  bool accept(std::string_view word) {
    if (at_ >= words_.size() || words_[at_] != word) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view word) {
    if (!accept(word)) fail(concat('"', word, '"'));
  }
  template <std::size_t Count>
  std::optional<std::size_t> accept_one(const std::array<std::string_view, Count>& names) {
    const std::size_t index = at_ < words_.size() ? index_of(names, words_[at_]) : no_name;
    if (index == no_name) return {};
    ++at_;
    return index;
  }
  template <std::size_t Count>
  std::size_t expect_one(const std::array<std::string_view, Count>& names) {
    const auto index = accept_one(names);
    if (!index) fail(concat("one of ", listed(names)));
    return *index;
  }
  void expect_article() {
    if (!accept("a") && !accept("an")) fail("\"a\" or \"an\"");
  }
  bool at_end() const { return at_ == words_.size(); }
  std::size_t place() const { return at_; }
  void go_back(std::size_t place) { at_ = place; }

  [[noreturn]] void fail(const std::string& expected) const {
    throw ConfigError(concat("prompt: word ", at_ + 1, ": expected ", expected, ", found ",
                             at_ < words_.size() ? concat('"', words_[at_], '"') : std::string("the end")));
  }

 private:
  std::vector<std::string> words_;
  std::size_t at_ = 0;
};

inline AskedObject parse_object(Caption& caption) {
  AskedObject object;
  caption.expect_article();
  object.size = caption.accept_one(sizes).value_or(1);
  object.texture = caption.accept_one(textures).value_or(0);
  object.colour = caption.expect_one(colours);
  object.shape = caption.expect_one(shapes);
  return object;
}

inline void parse_ground(Caption& caption, Description& description) {
  caption.expect_article();
  description.ground_pattern = caption.accept_one(patterns).value_or(0);
  description.ground_colour = caption.expect_one(ground_colours);
  caption.expect("background");
}

/// "a yellow background ...": a caption that begins with it, as against one that begins with an object.
inline bool begins_with_ground(Caption& caption) {
  const std::size_t start = caption.place();
  const bool article = caption.accept("a") || caption.accept("an");
  (void)caption.accept_one(patterns);
  const bool ground = article && caption.accept_one(ground_colours) && caption.accept("background");
  caption.go_back(start);
  return ground;
}

inline std::optional<std::size_t> accept_relation(Caption& caption) {
  if (caption.accept("above") || caption.accept("over")) return 0;
  if (caption.accept("below") || caption.accept("under")) return 1;
  if (const bool to = caption.accept("to"); to) caption.expect("the");
  for (const std::size_t side : {std::size_t{2}, std::size_t{3}})
    if (caption.accept(relations[side])) {
      caption.expect("of");
      return side;
    }
  return {};
}

inline std::size_t expect_relation(Caption& caption) {
  const auto relation = accept_relation(caption);
  if (!relation) caption.fail("above, over, below, under, left of or right of");
  return *relation;
}

inline void parse_scene(Caption& caption, Description& description) {
  auto& objects = description.objects;
  objects.push_back(parse_object(caption));
  if (caption.accept("with")) {  // "B with A above it": A is the one that is related
    objects.insert(objects.begin(), parse_object(caption));
    description.relations.push_back({0, expect_relation(caption), 1});
    caption.expect("it");
  } else if (caption.accept(",")) {
    objects.push_back(parse_object(caption));
    caption.expect("and");
    objects.push_back(parse_object(caption));
  } else if (caption.accept("and")) {
    objects.push_back(parse_object(caption));
  } else if (const auto relation = accept_relation(caption)) {
    objects.push_back(parse_object(caption));
    description.relations.push_back({0, *relation, 1});
    if (caption.accept("and")) {
      description.relations.push_back({0, expect_relation(caption), 2});
      objects.push_back(parse_object(caption));
    }
  }
}

}  // namespace detail

inline Description Description::parse(std::string_view prompt) {
  using namespace detail;
  Caption caption(prompt);
  Description description;
  if (caption.accept("on")) {
    parse_ground(caption, description);
    caption.expect(",");
    parse_scene(caption, description);
  } else if (begins_with_ground(caption)) {
    parse_ground(caption, description);
    caption.expect("with");
    parse_scene(caption, description);
  } else {
    parse_scene(caption, description);
    caption.expect("on");
    parse_ground(caption, description);
  }
  if (!caption.at_end()) caption.fail("the end");
  return description;
}

inline Description Description::read(const std::filesystem::path& path) {
  return from_json(examples::ConfigFile::open(path).json(), path.string());
}

inline Description Description::from_json(const nlohmann::json& json, const std::string& where) {
  using namespace detail;
  const auto list = [&](const char* field, std::size_t least, std::size_t most) -> const nlohmann::json& {
    const auto at = json.find(field);
    if (at == json.end() || !at->is_array() || at->size() < least || at->size() > most)
      throw ConfigError(concat(where, ": field \"", field, "\": expected a list of ", least, " to ", most));
    return *at;
  };
  Description description;
  for (const auto& object : list("objects", 1, 3))
    description.objects.push_back({.shape = named_in(where, object, "shape", shapes),
                                   .colour = named_in(where, object, "colour", colours),
                                   .size = named_in(where, object, "size", sizes),
                                   .texture = named_in(where, object, "texture", textures)});
  for (const auto& relation : list("relations", 0, 2)) {
    const auto place = [&](const char* field) {
      const auto at = relation.is_object() ? relation.find(field) : relation.end();
      if (at == relation.end() || !at->is_number_unsigned() || at->get<std::size_t>() >= description.objects.size())
        throw ConfigError(concat(where, ": field \"", field, "\": expected the number of an object, below ",
                                 description.objects.size()));
      return at->get<std::size_t>();
    };
    description.relations.push_back(
        {place("subject"), named_in(where, relation, "relation", judge::relations), place("object")});
    if (description.relations.back().subject == description.relations.back().object)
      throw ConfigError(concat(where, ": field \"relations\": relates object ", place("subject"), " to itself"));
  }
  const auto ground = json.value("background", nlohmann::json());
  description.ground_colour = named_in(where, ground, "colour", ground_colours);
  description.ground_pattern = named_in(where, ground, "pattern", patterns);
  return description;
}

}  // namespace ebb::judge
