#include "ebb/io/safetensors.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ebb/io/safetensors_writer.hpp"
#include "support/safetensors_text.hpp"
#include "support/temporary_directory.hpp"

using ebb::DType;
using ebb::FileError;
using ebb::SafetensorsFile;
using ebb::Shape;
using ebb::TensorView;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::safetensors_text;
using ebb::testing::TemporaryDirectory;

namespace {

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

}  // namespace

TEST_CASE("SafetensorsFile: dtypes, shapes, bytes and metadata") {
  const TemporaryDirectory directory;
  std::string text = safetensors_text(
      "{\"__metadata__\":{\"format\":\"pt\"}," + entry("a", "F32", "[2,1]", "[0,8]") + "," +
          entry("b", "I64", "[]", "[8,16]") + "," + entry("c", "BF16", "[0,3]", "[16,16]") + "," +
          entry("d", "F8_E4M3", "[1,1,1,1,2]", "[16,18]") + "," + entry("e", "U8", "[1]", "[18,19]") + "," +
          entry("f", "I8", "[1]", "[19,20]") + "," + entry("g", "F16", "[1]", "[20,22]") + "}   ",
      22);
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(text.data() + text.size() - 22, values, sizeof(values));
  SafetensorsFile opened = SafetensorsFile::open(directory.write("file.safetensors", text));
  const TensorView* view = opened.find("a");
  const SafetensorsFile file = std::move(opened);
  CHECK(file.find("a") == view);
  CHECK(file.names() == std::vector<std::string>{"a", "b", "c", "d", "e", "f", "g"});
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.at("a").dtype == DType::f32);
  CHECK(file.at("a").shape == Shape{2, 1});
  CHECK(ebb::element<float>(file.at("a"), 1) == -2.0f);
  CHECK(file.at("b").shape.rank() == 0);
  CHECK(file.at("c").bytes.empty());
  CHECK(file.at("d").dtype == DType::f8_e4m3);
  CHECK(file.at("g").dtype == DType::f16);
  CHECK(file.find("h") == nullptr);
  CHECK_FALSE(file.contains("h"));
  CHECK(first_missing(message_of<FileError>([&] { file.at("h"); }), {"file.safetensors", "'h'", "missing"}) == "");
}

TEST_CASE("SafetensorsFile: offsets need not be aligned") {
  const TemporaryDirectory directory;
  std::string text =
      safetensors_text("{" + entry("odd", "U8", "[1]", "[0,1]") + "," + entry("x", "F32", "[3]", "[1,13]") + "}", 13);
  const float values[3] = {1.0f, 2.0f, 3.0f};
  std::memcpy(text.data() + text.size() - 12, values, sizeof(values));
  const SafetensorsFile file = SafetensorsFile::open(directory.write("file", text));
  CHECK(ebb::element<float>(file.at("x"), 2) == 3.0f);
  std::vector<ebb::bfloat16> copy(3);
  ebb::copy_elements(file.at("x"), std::span<ebb::bfloat16>(copy));
  CHECK(static_cast<float>(copy[1]) == 2.0f);
  std::vector<float> exact(3);
  ebb::copy_elements(file.at("x"), std::span<float>(exact));
  CHECK(exact[0] == 1.0f);
  CHECK_THROWS_AS(ebb::copy_elements(file.at("x"), std::span(exact).first(2)), ebb::ShapeError);
  CHECK_THROWS_AS(ebb::copy_elements(file.at("odd"), std::span(exact).first(1)), ebb::ConfigError);
}

TEST_CASE("SafetensorsFile: an unsupported dtype is an error only when the tensor is asked for") {
  const TemporaryDirectory directory;
  const SafetensorsFile file = SafetensorsFile::open(directory.write(
      "file", safetensors_text(
                  "{" + entry("a", "F64", "[1]", "[0,8]") + "," + entry("b", "NEW_TYPE", "[7]", "[8,9]") + "}", 9)));
  CHECK(file.contains("a"));
  CHECK(file.names().size() == 2);
  CHECK(file.bytes_of("a").size() == 8);
  CHECK(first_missing(message_of<FileError>([&] { file.find("a"); }), {"'a'", "F64", "BF16"}) == "");
  CHECK(first_missing(message_of<FileError>([&] { file.at("b"); }), {"'b'", "NEW_TYPE"}) == "");
}

TEST_CASE("SafetensorsFile: damaged files are refused; the message names file, tensor, expected and found") {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& content, const std::vector<std::string>& parts) {
    const auto path = directory.write("bad.safetensors", content);
    auto expected = parts;
    expected.push_back(path.string());
    CHECK(first_missing(message_of<FileError>([&] { SafetensorsFile::open(path); }), expected) == "");
  };
  const auto header = [](const std::string& entries, std::size_t data) {
    return safetensors_text("{" + entries + "}", data);
  };

  SUBCASE("missing") {
    CHECK(first_missing(message_of<FileError>([&] { SafetensorsFile::open(directory / "none"); }), {"none"}) == "");
  }
  SUBCASE("empty") { refused("", {"truncated", "at least 8", "found 0"}); }
  SUBCASE("shorter than the length") { refused("1234567", {"truncated", "at least 8", "found 7"}); }
  SUBCASE("truncated header") {
    refused(header(entry("a", "F32", "[1]", "[0,4]"), 0).substr(0, 20),
            {"truncated", "header of 54 bytes", "found 12"});
  }
  SUBCASE("header length past the end") {
    refused(std::string("\xff\xff\0\0\0\0\0\0", 8) + "{}", {"truncated", "65535", "found 2"});
  }
  SUBCASE("header length above the limit") {
    refused(std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8) + "{}", {"at most 100000000", "18446744073709551615"});
  }
  SUBCASE("header is no object") { refused(safetensors_text("[]", 0), {"begins with '{'"}); }
  SUBCASE("header is no JSON") { refused(safetensors_text("{\"a\":}", 0), {"header", "not valid JSON at byte 5"}); }
  SUBCASE("header too deep") {
    std::string deep = "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}";
    refused(safetensors_text(deep, 0), {"nested too deep", "64"});
  }
  SUBCASE("duplicate names") {
    refused(header(entry("a", "U8", "[1]", "[0,1]") + "," + entry("a", "U8", "[1]", "[1,2]"), 2), {"\"a\"", "twice"});
  }
  SUBCASE("control characters, which are shown escaped") {
    for (const char* name : {"\\u001b[2J", "a\\n", "\\u0000", "\\u007f", "\\u009b2J"}) {
      refused(header(entry(name, "U8", "[1]", "[0,1]"), 1),
              {ebb::concat("tensor \"", name, "\""), "control characters"});
      refused(header(entry("a", name, "[1]", "[0,1]"), 1), {"'a'", ebb::concat("dtype \"", name, "\"")});
    }
    refused(header("\"__metadata__\":{\"\\u001b[2J\":1}", 0), {"__metadata__ \"\\u001b[2J\""});
  }
  SUBCASE("entry is no object") { refused(header("\"a\":1", 0), {"'a'", "expected a dtype", "found none"}); }
  SUBCASE("dtype is no string") {
    refused(header("\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,0]}", 0), {"'a'", "dtype", "an integer"});
  }
  SUBCASE("no shape") {
    refused(header("\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}", 0), {"'a'", "array as shape", "found none"});
  }
  SUBCASE("negative shape") {
    refused(header(entry("a", "U8", "[-1]", "[0,0]"), 0), {"'a'", "non-negative", "shape", "-1"});
  }
  SUBCASE("fractional offset") {
    refused(header(entry("a", "U8", "[1]", "[0,1.0]"), 1), {"'a'", "non-negative integers", "data_offsets", "1.0"});
  }
  SUBCASE("three offsets") { refused(header(entry("a", "U8", "[1]", "[0,1,2]"), 2), {"'a'", "expected 2", "found 3"}); }
  SUBCASE("rank") {
    refused(header(entry("a", "U8", "[1,1,1,1,1,1]", "[0,1]"), 1), {"'a'", "at most 5 dimensions", "found 6"});
  }
  SUBCASE("begin after end") { refused(header(entry("a", "U8", "[1]", "[1,0]"), 1), {"'a'", "ascending", "[1, 0]"}); }
  SUBCASE("out of range") {
    refused(header(entry("a", "F32", "[2]", "[0,8]"), 7), {"'a'", "end at byte 8", "found only 7"});
  }
  SUBCASE("far out of range") {
    refused(header(entry("a", "U8", "[9223372036854775807]", "[0,9223372036854775807]"), 1), {"'a'", "found only 1"});
  }
  SUBCASE("size and shape disagree") {
    refused(header(entry("a", "F32", "[3]", "[0,8]"), 8), {"'a'", "expected 12 bytes", "[3]", "F32", "found 8"});
  }
  SUBCASE("size overflows") {
    refused(header(entry("a", "F32", "[4294967296,4294967296]", "[0,0]"), 0), {"'a'", "overflows"});
    refused(header(entry("a", "F32", "[4611686018427387904]", "[0,0]"), 0), {"'a'", "overflows"});
  }
  SUBCASE("overlap") {
    refused(header(entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[4]", "[3,7]"), 7),
            {"'b'", "overlaps 'a'", "byte 4", "found it at 3"});
  }
  SUBCASE("the same bytes twice") {
    refused(header(entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[4]", "[0,4]"), 4), {"'b' overlaps 'a'"});
  }
  SUBCASE("hole") {
    refused(header(entry("a", "U8", "[1]", "[0,1]") + "," + entry("b", "U8", "[1]", "[2,3]"), 3),
            {"'b'", "byte 1", "found it at 2", "hole"});
  }
  SUBCASE("surplus data") { refused(header(entry("a", "U8", "[1]", "[0,1]"), 2), {"expected 1 bytes", "found 2"}); }
  SUBCASE("metadata is no object") { refused(header("\"__metadata__\":1", 0), {"__metadata__", "an object"}); }
  SUBCASE("metadata is no string") {
    refused(header("\"__metadata__\":{\"k\":1}", 0), {"__metadata__ \"k\"", "a string", "an integer"});
  }
}

TEST_CASE("SafetensorsFile: a file with random damage is read or refused, never worse") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  {
    ebb::SafetensorsWriter writer(path,
                                  {{"a.weight", DType::f32, {3, 5}}, {"b", DType::u8, {7}}, {"c", DType::i64, {}}});
    writer.write("a.weight", std::vector<std::byte>(60));
    writer.write("b", std::vector<std::byte>(7));
    writer.write("c", std::vector<std::byte>(8));
    writer.commit();
  }
  const std::string valid = TemporaryDirectory::read(path);
  std::mt19937 random(7);
  const auto below = [&](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
  };
  const std::string telling = "{}[]\",:0123456789-eE.\\u\xff";
  std::size_t read = 0;
  constexpr std::size_t rounds = 20'000;
  for (std::size_t round = 0; round < rounds; ++round) {
    std::string text = valid;
    for (std::size_t change = below(4); change < 4; ++change) {
      const bool header = below(4) != 0;
      const std::size_t at = header ? below(valid.size() - 75) : below(text.size());
      text[at] = below(2) ? telling[below(telling.size())] : static_cast<char>(below(256));
    }
    if (below(8) == 0) text.resize(below(text.size()) + 1);
    directory.write("file", text);
    try {
      const SafetensorsFile file = SafetensorsFile::open(path);
      unsigned sum = 0;
      const std::byte* begin = file.map().bytes().data();
      for (const std::string& name : file.names()) {
        const auto bytes = file.bytes_of(name);
        REQUIRE(bytes.data() >= begin);
        REQUIRE(bytes.data() + bytes.size() <= begin + text.size());
        for (const std::byte byte : bytes) sum += static_cast<unsigned>(byte);
      }
      ++read;
      CHECK(sum < 100'000);
    } catch (const ebb::Error&) {
    }
  }
  CHECK(read > 0);
  CHECK(read < rounds);
}
