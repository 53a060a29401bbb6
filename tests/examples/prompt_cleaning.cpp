#include "common/prompt_cleaning.hpp"

#include <doctest/doctest.h>
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "support/golden.hpp"

using ebb::examples::clean_prompt;
using ebb::examples::unescape_html;

namespace {

nlohmann::json golden() {
  std::ifstream file(EBB_GOLDEN_DIR "/prompt_cleaning.json");
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

}  // namespace

TEST_CASE("character references are replaced as Python's html.unescape replaces them") {
  const auto file = golden();
  REQUIRE(file.at("unescaped").size() >= 300);
  for (const auto& entry : file.at("unescaped")) {
    CAPTURE(entry.dump());
    CHECK(unescape_html(entry[0].get<std::string>()) == entry[1].get<std::string>());
  }
}

TEST_CASE("every name of HTML 5 is known, with its semicolon and without where that counts") {
  const auto file = golden();
  const auto& every = file.at("every_name");
  CHECK(unescape_html(every[0].get<std::string>()) == every[1].get<std::string>());
  const auto& entities = ebb::examples::html_entities;
  CHECK(std::is_sorted(entities.begin(), entities.end(), [](const auto& a, const auto& b) { return a.name < b.name; }));
  const auto& open = ebb::examples::html_entities_without_semicolon;
  CHECK(std::is_sorted(open.begin(), open.end()));
}

TEST_CASE("prompts are cleaned as diffusers cleans them without ftfy") {
  const auto file = golden();
  REQUIRE(file.at("cleaned").size() >= 100);
  for (const auto& entry : file.at("cleaned")) {
    CAPTURE(entry.dump());
    CHECK(clean_prompt(entry[0].get<std::string>()) == entry[1].get<std::string>());
  }
  for (const char* name : {"two_blocks", "one_block", "three_blocks"}) {
    const ebb::testing::Golden pipeline(name, "wan");
    auto prompts = pipeline.call().at("prompt");
    if (prompts.is_string()) prompts = nlohmann::json::array({prompts});
    const auto& cleaned = pipeline.facts().at("prompts_cleaned");
    REQUIRE(prompts.size() == cleaned.size());
    for (std::size_t i = 0; i < prompts.size(); ++i)
      CHECK(clean_prompt(prompts[i].get<std::string>()) == cleaned[i].get<std::string>());
  }
}

TEST_CASE("text that is no UTF-8, or a number of any length, does no harm") {
  CHECK(unescape_html("\xff&amp;\xc3") == "\xff&\xc3");
  CHECK(unescape_html("&\xe6\x97") == "&\xe6\x97");
  CHECK(clean_prompt(" \xe3\x80") == "\xe3\x80");
  CHECK(unescape_html("&#" + std::string(100'000, '9') + ";") == "\xef\xbf\xbd");
  CHECK(clean_prompt(std::string(100'000, '&')) == std::string(100'000, '&'));
}
