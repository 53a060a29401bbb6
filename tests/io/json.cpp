#include "ebb/io/json.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "ebb/io/json_parser.hpp"

using ebb::Json;
using ebb::JsonParser;

TEST_CASE("Json: text is that of Python's json.dumps") {
  Json::Object object;
  object.emplace_back("quant_type", "nf4");
  object.emplace_back("blocksize", 64);
  object.emplace_back("flag", true);
  object.emplace_back("none", Json());
  object.emplace_back("shape", Json::Array{3072, 64});
  object.emplace_back("empty", Json::Array{});
  const Json value(object);
  CHECK(value.text() ==
        R"({"quant_type": "nf4", "blocksize": 64, "flag": true, "none": null, "shape": [3072, 64], "empty": []})");
  CHECK(value.text(2) ==
        "{\n  \"quant_type\": \"nf4\",\n  \"blocksize\": 64,\n  \"flag\": true,\n  \"none\": null,\n"
        "  \"shape\": [\n    3072,\n    64\n  ],\n  \"empty\": []\n}");
}

TEST_CASE("Json: digits are those of Python's repr") {
  CHECK(Json::digits(6.0) == "6.0");
  CHECK(Json::digits(-0.0) == "-0.0");
  CHECK(Json::digits(0.1) == "0.1");
  CHECK(Json::digits(123456.789) == "123456.789");
  CHECK(Json::digits(0.0001) == "0.0001");
  CHECK(Json::digits(0.00001) == "1e-05");
  CHECK(Json::digits(1e15) == "1000000000000000.0");
  CHECK(Json::digits(1e16) == "1e+16");
  CHECK(Json::digits(-1.5e-7) == "-1.5e-07");
  CHECK(Json::digits(5e-324) == "5e-324");
  CHECK(Json::digits(static_cast<double>(0.1230214461684227f)) == "0.1230214461684227");
  CHECK(Json::digits(std::numeric_limits<double>::infinity()) == "Infinity");
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    const double value = std::bit_cast<double>(random());
    if (!(value - value == 0.0)) continue;
    const Json back = JsonParser::parse(Json::digits(value), "digits");
    REQUIRE(back.number(0.0) == value);
  }
}

TEST_CASE("Json: integers of 2^63 and more are doubles, whether given or read") {
  const auto limit = std::uint64_t{1} << 63;
  CHECK(Json(limit - 1).text() == "9223372036854775807");
  CHECK(Json(limit).text() == "9.223372036854776e+18");
  CHECK(Json(limit) == JsonParser::parse("9223372036854775808", "limit"));
  CHECK(Json(std::numeric_limits<std::int64_t>::min()).text() == "-9223372036854775808");
}

TEST_CASE("Json: strings are escaped, in ASCII or in UTF-8") {
  CHECK(Json::quoted("a\"b\\c\n\t\x01/\x7f") == R"("a\"b\\c\n\t\u0001/\u007f")");
  CHECK(Json::quoted("\u00e9\u20ac\U0001f600") == R"("\u00e9\u20ac\ud83d\ude00")");
  CHECK(Json::quoted("\u00e9\U0001f600\x01", ebb::JsonText::utf8) == "\"\u00e9\U0001f600\\u0001\"");
  CHECK(Json::quoted("\xff") == R"("\ufffd")");
}
