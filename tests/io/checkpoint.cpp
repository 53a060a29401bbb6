#include "ebb/io/checkpoint.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ebb/io/safetensors_writer.hpp"
#include "support/temporary_directory.hpp"

using ebb::Checkpoint;
using ebb::DType;
using ebb::FileError;
using ebb::Shape;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::TemporaryDirectory;

namespace {

/// One byte a tensor, all equal to `value`.
void write_file(const std::filesystem::path& path, const std::vector<std::string>& names, char value = 1) {
  std::vector<ebb::TensorDeclaration> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::u8, {1}});
  ebb::SafetensorsWriter writer(path, tensors);
  for (const std::string& name : names) writer.write(name, std::as_bytes(std::span(&value, 1)));
  writer.commit();
}

constexpr const char* diffusers_index = "diffusion_pytorch_model.safetensors.index.json";

std::string refusal(const TemporaryDirectory& directory, std::string_view variant = {}) {
  return message_of<FileError>([&] { Checkpoint::open(directory.path(), variant); });
}

}  // namespace

TEST_CASE("Checkpoint: a single file, by either library's name or by its own") {
  for (const char* name : {"diffusion_pytorch_model.safetensors", "model.safetensors"}) {
    const TemporaryDirectory directory;
    write_file(directory / name, {"b", "a.weight", "a.bias"});
    Checkpoint opened = Checkpoint::open(directory.path());
    const ebb::TensorView* view = opened.find("b");
    const Checkpoint checkpoint = std::move(opened);
    CHECK(checkpoint.find("b") == view);
    CHECK(checkpoint.names() == std::vector<std::string>{"a.bias", "a.weight", "b"});
    CHECK(checkpoint.names_with_prefix("a.").size() == 2);
    CHECK(checkpoint.names_with_prefix("c").empty());
    CHECK(checkpoint.location() == directory.path());
    CHECK(checkpoint.file_of("b") == directory / name);
    CHECK(checkpoint.bytes_of("b").size() == 1);
    CHECK(checkpoint.find("c") == nullptr);
  }
  const TemporaryDirectory directory;
  write_file(directory / "flux1.safetensors", {"a"});
  CHECK(Checkpoint::open(directory / "flux1.safetensors").contains("a"));
}

TEST_CASE("Checkpoint: shards with an index") {
  const TemporaryDirectory directory;
  write_file(directory / "one.safetensors", {"a", "b"});
  write_file(directory / "two.safetensors", {"c", "unlisted"});
  directory.write(
      diffusers_index,
      R"({"metadata": {}, "weight_map": {"a": "one.safetensors", "c": "two.safetensors", "b": "one.safetensors"}})");
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  CHECK(checkpoint.files().size() == 2);
  CHECK(checkpoint.names().size() == 4);  // as in diffusers, what is in a shard counts
  CHECK(checkpoint.file_of("b") == directory / "one.safetensors");
  CHECK(checkpoint.file_of("c") == directory / "two.safetensors");
}

TEST_CASE("Checkpoint: of index and single file, each library's choice") {
  const TemporaryDirectory directory;
  write_file(directory / "shard.safetensors", {"sharded"});
  const std::string index = R"({"weight_map": {"sharded": "shard.safetensors"}})";
  write_file(directory / "model.safetensors", {"single"});
  directory.write("model.safetensors.index.json", index);
  CHECK(Checkpoint::open(directory.path()).contains("single"));
  write_file(directory / "diffusion_pytorch_model.safetensors", {"single"});
  directory.write(diffusers_index, index);
  CHECK(Checkpoint::open(directory.path()).contains("sharded"));
}

TEST_CASE("Checkpoint: variants") {
  for (const char* name :
       {"diffusion_pytorch_model.fp16.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.safetensors.fp16.index.json"}) {
    const TemporaryDirectory directory;
    write_file(directory / "shard.fp16.safetensors", {"a"});
    directory.write(name, R"({"weight_map": {"a": "shard.fp16.safetensors"}})");
    CHECK(Checkpoint::open(directory.path(), "fp16").contains("a"));
  }
  const TemporaryDirectory directory;
  write_file(directory / "model.fp16.safetensors", {"a"});
  CHECK(Checkpoint::open(directory.path(), "fp16").contains("a"));
  CHECK(first_missing(refusal(directory), {directory.path().string(), "no weights", "model.safetensors",
                                           "found model.fp16.safetensors", "variant"}) == "");
}

TEST_CASE("Checkpoint: no weights") {
  const TemporaryDirectory directory;
  CHECK(first_missing(refusal(directory), {directory.path().string(), diffusers_index, "model.safetensors",
                                           "found no weight files"}) == "");
  CHECK_THROWS_AS(Checkpoint::open(directory / "none"), FileError);
}

TEST_CASE("Checkpoint: a directory that may not be read") {
  const TemporaryDirectory directory;
  write_file(directory / "model.safetensors", {"a"});
  std::filesystem::permissions(directory.path(), std::filesystem::perms::none);
  if (::access(directory.path().c_str(), R_OK) == 0) {
    MESSAGE("skipped: root may read any directory");
    return;
  }
  CHECK(first_missing(refusal(directory), {directory.path().string(), "no weights", "Permission denied"}) == "");
}

TEST_CASE("Checkpoint: a missing tensor names the directory and the nearest names") {
  const TemporaryDirectory directory;
  write_file(directory / "model.safetensors",
             {"blocks.0.attn.to_q.weight", "blocks.0.attn.to_k.weight", "proj_out.bias"});
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  CHECK(first_missing(message_of<FileError>([&] { checkpoint.at("blocks.0.attn.to_qq.weight"); }),
                      {directory.path().string(), "missing tensor 'blocks.0.attn.to_qq.weight'",
                       "nearest names are blocks.0.attn.to_q.weight, blocks.0.attn.to_k.weight"}) == "");
  CHECK_THROWS_AS(checkpoint.file_of("x"), FileError);
  CHECK_THROWS_AS(checkpoint.bytes_of("x"), FileError);
}

TEST_CASE("Checkpoint: a wrong shape") {
  const TemporaryDirectory directory;
  write_file(directory / "model.safetensors", {"a"});
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  CHECK(checkpoint.expect_shape("a", Shape{1}).bytes.size() == 1);
  CHECK(first_missing(message_of<FileError>([&] {
                        checkpoint.expect_shape("a", Shape{2, 3});
                      }),
                      {(directory / "model.safetensors").string(), "'a'", "expected shape [2, 3]", "found [1]"}) == "");
}

TEST_CASE("Checkpoint: shards outside the directory are refused") {
  for (const std::string shard : {"../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\\\x.safetensors",
                                  "..", "", "x.bin", "x\\u0000.safetensors"}) {
    CAPTURE(shard);
    const TemporaryDirectory directory;
    directory.write(diffusers_index, R"({"weight_map": {"a": ")" + shard + R"("}})");
    CHECK(first_missing(refusal(directory), {diffusers_index, "tensor 'a'", "beside the index", "\"" + shard + "\""}) ==
          "");
  }
}

TEST_CASE("Checkpoint: damaged indexes") {
  const TemporaryDirectory directory;
  write_file(directory / "one.safetensors", {"a", "b"});
  write_file(directory / "two.safetensors", {"c", "b"});
  write_file(directory / "three.safetensors", {"d"});
  const auto refused = [&](const std::string& index, const std::vector<std::string>& parts) {
    directory.write(diffusers_index, index);
    CHECK(first_missing(refusal(directory), parts) == "");
  };
  SUBCASE("no JSON") { refused("{", {diffusers_index, "not valid JSON at byte 1"}); }
  SUBCASE("no weight_map") { refused("{}", {diffusers_index, "weight_map", "found none"}); }
  SUBCASE("weight_map is no object") { refused(R"({"weight_map": []})", {diffusers_index, "weight_map", "an array"}); }
  SUBCASE("shard is no string") { refused(R"({"weight_map": {"a": 1}})", {diffusers_index, "'a'", "an integer"}); }
  SUBCASE("control characters, which are shown escaped") {
    refused(R"({"weight_map": {"\u001b[2J": "one.safetensors"}})", {diffusers_index, R"(tensor "\u001b[2J")"});
    refused(R"({"weight_map": {"a": "\u001b[2J.safetensors"}})", {diffusers_index, R"(found "\u001b[2J.safetensors")"});
  }
  SUBCASE("missing shard") {
    refused(R"({"weight_map": {"a": "four.safetensors"}})", {diffusers_index, "four.safetensors", "'a'", "is missing"});
  }
  SUBCASE("tensor in another shard") {
    refused(R"({"weight_map": {"a": "three.safetensors", "c": "one.safetensors"}})",
            {diffusers_index, "'a'", "expected in three.safetensors", "one.safetensors"});
  }
  SUBCASE("tensor nowhere") {
    refused(R"({"weight_map": {"a": "one.safetensors", "z": "one.safetensors"}})",
            {diffusers_index, "'z'", "expected in one.safetensors", "found nowhere"});
  }
  SUBCASE("tensor in two shards") {
    refused(R"({"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}})",
            {"two.safetensors", "'b'", "one.safetensors", "one shard"});
  }
}

TEST_CASE("Checkpoint: components that diffusers and transformers saved") {
  const auto root = std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines/dev";
  CHECK(Checkpoint::open(root / "transformer").files().size() == 3);
  CHECK(Checkpoint::open(root / "text_encoder").files().size() == 1);
  CHECK(Checkpoint::open(root / "vae").contains("decoder.conv_in.weight"));
}
