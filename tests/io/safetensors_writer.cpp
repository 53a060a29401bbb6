#include "ebb/io/safetensors_writer.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ebb/io/safetensors.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_directory.hpp"

using ebb::DType;
using ebb::FileError;
using ebb::SafetensorsFile;
using ebb::SafetensorsWriter;
using ebb::Shape;
using ebb::ShapeError;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::TemporaryDirectory;

TEST_CASE("SafetensorsWriter: the file is that of the reference implementation, byte for byte") {
  const TemporaryDirectory directory;
  const auto path = directory / "out.safetensors";
  SafetensorsWriter writer(path, {{"b", DType::u8, {3}}, {"z", DType::f32, {1}}, {"a", DType::bf16, {2, 1}}});
  const float one = 1.0f;
  writer.write("b", std::as_bytes(std::span("xyz", 1)));  // in pieces and out of order
  writer.write("a", std::as_bytes(std::span("1234", 4)));
  writer.write("z", std::as_bytes(std::span(&one, 1)));
  writer.write("b", std::as_bytes(std::span("yz", 2)));
  CHECK_FALSE(std::filesystem::exists(path));
  writer.commit();
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
      R"("a":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  std::string expected(8, '\0');
  expected[0] = static_cast<char>(padded.size());
  expected += padded + std::string("\0\0\x80\x3f", 4) + "1234xyz";
  CHECK(TemporaryDirectory::read(path) == expected);
  CHECK(directory.files() == 1);
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const std::string& name : file.names())
    CHECK(reinterpret_cast<std::uintptr_t>(file.at(name).bytes.data()) % ebb::size_of(file.at(name).dtype) == 0);
}

TEST_CASE("SafetensorsWriter: rewrites what diffusers and transformers saved, byte for byte") {
  const TemporaryDirectory directory;
  for (const char* name :
       {"transformer_nf4/diffusion_pytorch_model.safetensors", "transformer_int8/diffusion_pytorch_model.safetensors",
        "text_encoder_2_nf4_dq/model.safetensors"}) {
    CAPTURE(name);
    const auto source_path = std::filesystem::path(EBB_GOLDEN_DIR) / "checkpoints" / name;
    const SafetensorsFile source = SafetensorsFile::open(source_path);
    std::vector<ebb::TensorDeclaration> tensors;
    for (const std::string& tensor : source.names())
      tensors.push_back({tensor, source.at(tensor).dtype, source.at(tensor).shape});
    SafetensorsWriter writer(directory / "copy", tensors, {source.metadata().begin(), source.metadata().end()});
    for (const std::string& tensor : source.names()) writer.write(tensor, source.at(tensor).bytes);
    writer.commit();
    CHECK((TemporaryDirectory::read(directory / "copy") == TemporaryDirectory::read(source_path)));
  }
}

TEST_CASE("SafetensorsWriter: no tensors, empty tensors, names that must be escaped") {
  const TemporaryDirectory directory;
  SafetensorsWriter(directory / "none", {}, {}).commit();
  CHECK(SafetensorsFile::open(directory / "none").names().empty());
  const std::string name = "quote \" backslash \\ \u00e9";
  SafetensorsWriter writer(directory / "file", {{name, DType::f16, {0, 4}}}, {{"k\n", "v\t"}});
  writer.commit();
  const SafetensorsFile file = SafetensorsFile::open(directory / "file");
  CHECK(file.at(name).shape == Shape{0, 4});
  CHECK(file.metadata().at("k\n") == "v\t");
}

TEST_CASE("SafetensorsWriter: wrong use is refused and leaves nothing") {
  const TemporaryDirectory directory;
  const std::vector<std::byte> bytes(16);
  {
    SafetensorsWriter writer(directory / "file", {{"a", DType::f32, {3}}});
    CHECK(first_missing(message_of<ShapeError>([&] { writer.write("b", bytes); }), {"file", "'b'", "not declared"}) ==
          "");
    CHECK(first_missing(message_of<ShapeError>([&] { writer.write("a", bytes); }), {"'a'", "at most 12", "found 16"}) ==
          "");
    writer.write("a", std::span(bytes).first(5));
    CHECK(first_missing(message_of<ShapeError>([&] { writer.commit(); }), {"'a'", "7 bytes were not supplied"}) == "");
    CHECK(directory.files() == 1);
  }
  CHECK(directory.files() == 0);
  CHECK(first_missing(message_of<FileError>([&] {
                        SafetensorsWriter(directory / "file", {{"a", DType::u8, {1}}, {"a", DType::u8, {1}}});
                      }),
                      {"'a'", "already taken"}) == "");
  CHECK_THROWS_AS(SafetensorsWriter(directory / "file", {{"__metadata__", DType::u8, {1}}}), FileError);
  CHECK_THROWS_AS(SafetensorsWriter(directory / "file", {{"a", DType::i64, {std::size_t{1} << 61}}}), ShapeError);
  CHECK_THROWS_AS(SafetensorsWriter(directory / "missing" / "file", {}), FileError);
  CHECK(directory.files() == 0);
}

TEST_CASE("SafetensorsWriter: what SafetensorsFile would refuse is not written") {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& name, const ebb::TensorMetadata& metadata,
                           const std::vector<std::string>& parts) {
    CHECK(first_missing(message_of<FileError>([&] {
                          SafetensorsWriter(directory / "file", {{name, DType::u8, {0}}}, metadata).commit();
                        }),
                        parts) == "");
    CHECK(directory.files() == 0);
  };
  refused("\xff", {}, {"file", "tensor \"\\ufffd\"", "UTF-8"});
  refused("a\n", {}, {"tensor \"a\\n\"", "control characters"});
  refused("\xc2\x9b", {}, {"tensor \"\\u009b\"", "control characters"});
  refused("a", {{"k\xff", "v"}}, {"__metadata__ \"k\\ufffd\"", "UTF-8"});
  refused("a", {{"k", "\xff"}}, {"__metadata__ \"k\"", "UTF-8"});
  const auto with_header = [&](std::size_t bytes) {
    const std::size_t rest = std::string_view(R"({"__metadata__":{"k":""}})").size();
    SafetensorsWriter(directory / "file", {}, {{"k", std::string(bytes - rest, 'v')}}).commit();
  };
  CHECK(first_missing(message_of<FileError>([&] { with_header(SafetensorsFile::max_header_bytes + 1); }),
                      {"at most 100000000", "found 100000008"}) == "");
  CHECK(directory.files() == 0);
  with_header(SafetensorsFile::max_header_bytes);
  CHECK(SafetensorsFile::open(directory / "file").metadata().at("k").ends_with('v'));
}

TEST_CASE("SafetensorsWriter: a full disk is an error with path and reason, and leaves nothing") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  const std::vector<std::byte> bytes(100'000);
  {
    SafetensorsWriter writer(path, {{"a", DType::u8, {bytes.size()}}});
    const ebb::testing::FileSizeLimit limit(50'000);
    CHECK(first_missing(message_of<FileError>([&] { writer.write("a", bytes); }),
                        {path.string(), "cannot be written", "File too large"}) == "");
  }
  CHECK(directory.files() == 0);
  const ebb::testing::FileSizeLimit limit(10);
  CHECK_THROWS_AS(SafetensorsWriter(path, {{"a", DType::u8, {1}}}), FileError);
  CHECK(directory.files() == 0);
}
