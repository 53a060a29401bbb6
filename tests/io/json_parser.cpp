#include "ebb/io/json_parser.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/temporary_directory.hpp"

using ebb::Json;
using ebb::JsonParser;
using ebb::testing::first_missing;
using ebb::testing::message_of;

TEST_CASE("JsonParser: values, their types and their order") {
  const Json value = JsonParser::parse(
      R"( {"b": [1, -2.5e1, 9223372036854775807, 9223372036854775808], "a": {"x": null}, "t": true, "f": false, "s": ""} )",
      "text");
  REQUIRE(value.object());
  CHECK((*value.object())[0].first == "b");
  CHECK((*value.object())[1].first == "a");
  const Json::Array& items = *value.find("b")->array();
  CHECK(*items[0].integer() == 1);
  CHECK(items[1].integer() == nullptr);
  CHECK(items[1].number(0.0) == -25.0);
  CHECK(*items[2].integer() == std::numeric_limits<std::int64_t>::max());
  CHECK(items[3].integer() == nullptr);
  CHECK(items[3].number(0.0) == 9223372036854775808.0);
  CHECK(value.find("a")->find("x")->is_null());
  CHECK(*value.find("t")->boolean());
  CHECK_FALSE(*value.find("f")->boolean());
  CHECK(value.find("s")->string()->empty());
  CHECK(value.find("missing") == nullptr);
  CHECK(value.find("b")->find("x") == nullptr);
}

TEST_CASE("JsonParser: what is too small for a double is zero") {
  const std::string zeros(400, '0');
  for (const std::string& text :
       {std::string("1e-400"), std::string("123.456E-400"), std::string("1e-99999999999999999999"), "0." + zeros + "1",
        "0." + zeros + "1e50", "1" + zeros + "e-800", std::string("0e99999999999999999999"), std::string("0.0e-400")}) {
    CAPTURE(text);
    for (const std::string sign : {"", "-"}) {
      const Json value = JsonParser::parse(sign + text, "text");
      CHECK(value.is_number());
      CHECK(value.number(1.0) == 0.0);
      CHECK(std::signbit(value.number(1.0)) == (sign == "-"));
    }
  }
  CHECK(JsonParser::parse("5e-324", "text").number(0.0) == std::numeric_limits<double>::denorm_min());
  CHECK(JsonParser::parse("0." + zeros + "1e400", "text").number(0.0) == 0.1);
}

TEST_CASE("JsonParser: escapes and surrogate pairs") {
  CHECK(*JsonParser::parse(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00")", "text").string() ==
        "\"\\/\b\f\n\r\tA\u00e9\u20ac\U0001f600");
  CHECK(*JsonParser::parse("\"\u00e9\U0001f600\"", "text").string() == "\u00e9\U0001f600");
}

TEST_CASE("JsonParser: what is not JSON is refused with source and byte") {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    CAPTURE(text);
    auto expected = parts;
    expected.push_back("some file");
    CHECK(first_missing(message_of<ebb::FileError>([&] { JsonParser::parse(text, "some file"); }), expected) == "");
  };
  refused("", {"byte 0", "a value", "the end of the text"});
  refused("{\"a\": 1", {"byte 7", "',' or '}'", "the end of the text"});
  refused("{\"a\" 1}", {"byte 5", "':'", "\"1\""});
  refused("{a: 1}", {"byte 1", "a key in quotes"});
  refused("{\"a\": 1,}", {"byte 8", "a key in quotes"});
  refused("[1,]", {"byte 3", "a value"});
  refused("[1 2]", {"byte 3", "',' or ']'"});
  refused("1 2", {"byte 2", "the end of the text"});
  refused("nul", {"byte 0"});
  refused("NaN", {"byte 0"});
  refused("01", {"byte 1"});
  refused("1.", {"byte 2", "a digit"});
  refused("-", {"a digit"});
  refused("1e+", {"a digit"});
  refused("1e999", {"a number that a double can hold"});
  refused("-1e99999999999999999999", {"a number that a double can hold"});
  refused("1" + std::string(400, '0') + ".5e-50", {"a number that a double can hold"});
  refused("\"a", {"byte 2"});
  refused("\"a\nb\"", {"byte 2", "control character"});
  refused("\"\\x\"", {"backslash"});
  refused("\"\\u12g4\"", {"hexadecimal"});
  refused("\"\\ud83d\"", {"low surrogate"});
  refused("\"\\ud83d\\u0041\"", {"low surrogate"});
  refused("\"\\ude00\"", {"lone low surrogate"});
  refused("\"\xff\"", {"valid UTF-8"});
  refused("\"\xc0\xaf\"", {"valid UTF-8"});          // overlong
  refused("\"\xed\xa0\x80\"", {"valid UTF-8"});      // surrogate
  refused("\"\xf4\x90\x80\x80\"", {"valid UTF-8"});  // past U+10FFFF
  refused("\"\xe2\x82\"", {"valid UTF-8"});          // cut short
  refused("{\"a\": 1, \"b\": 2, \"a\": 3}", {"\"a\"", "twice"});
  refused("// comment\n1", {"byte 0"});
}

TEST_CASE("JsonParser: depth and number of values are limited") {
  const auto nested = [](std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  CHECK_NOTHROW(JsonParser::parse(nested(64), "text"));
  CHECK(first_missing(message_of<ebb::FileError>([&] { JsonParser::parse(nested(65), "text"); }),
                      {"text", "too deep", "64"}) == "");
  CHECK_THROWS_AS(JsonParser::parse(std::string(10'000'000, '['), "text"), ebb::FileError);
  CHECK_NOTHROW(JsonParser::parse("[1, 2]", "text", {.depth = 64, .values = 3}));
  CHECK_THROWS_AS(JsonParser::parse("[1, 2, 3]", "text", {.depth = 64, .values = 3}), ebb::FileError);
}

TEST_CASE("JsonParser: files") {
  const ebb::testing::TemporaryDirectory directory;
  CHECK(*JsonParser::parse_file(directory.write("a.json", "[1]")).array() == Json::Array{1});
  CHECK(first_missing(message_of<ebb::FileError>([&] { JsonParser::parse_file(directory / "none.json"); }),
                      {"none.json", "cannot open", "No such file"}) == "");
  CHECK(
      first_missing(message_of<ebb::FileError>([&] { JsonParser::parse_file(directory.write("b.json", "[1, 2]"), 5); }),
                    {"b.json", "at most 5", "found 6"}) == "");
  CHECK(first_missing(message_of<ebb::FileError>([&] { JsonParser::parse_file(directory.write("c.json", "[")); }),
                      {"c.json", "byte 1"}) == "");
  CHECK_THROWS_AS(JsonParser::parse_file(directory.path()), ebb::FileError);
}
