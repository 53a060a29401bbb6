#include "ebb/io/checkpoint_writer.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "ebb/io/checkpoint.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_directory.hpp"

using ebb::Checkpoint;
using ebb::CheckpointWriter;
using ebb::DType;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::TemporaryDirectory;

namespace {

const std::string stem = "diffusion_pytorch_model";
const std::vector<ebb::TensorDeclaration> tensors{
    {"a.weight", DType::u8, {40}},  {"a.bias", DType::u8, {10}}, {"a.weight.absmax", DType::f32, {5}},
    {"b.weight", DType::u8, {200}}, {"c", DType::u8, {20}},      {"d", DType::u8, {30}}};

/// The first tensor's bytes are `value`, those of the next one are one more.
void write_all(CheckpointWriter& writer, char value) {
  for (const auto& tensor : tensors) {
    const std::vector<std::byte> bytes(tensor.bytes(), static_cast<std::byte>(value++));
    writer.write(tensor.name, bytes);
  }
}

void save(const std::filesystem::path& directory, std::size_t max_shard_bytes, char value = 1) {
  CheckpointWriter writer(directory, stem, tensors, max_shard_bytes);
  write_all(writer, value);
  writer.commit();
}

void check(const std::filesystem::path& directory, char value = 1) {
  const Checkpoint checkpoint = Checkpoint::open(directory);
  CHECK(checkpoint.names().size() == tensors.size());
  for (const auto& tensor : tensors) {
    CHECK(checkpoint.expect_shape(tensor.name, tensor.shape).dtype == tensor.dtype);
    CHECK(checkpoint.bytes_of(tensor.name).back() == static_cast<std::byte>(value++));
  }
}

}  // namespace

TEST_CASE("CheckpointWriter: one file when everything fits") {
  const TemporaryDirectory directory;
  save(directory.path(), CheckpointWriter::default_max_shard_bytes);
  CHECK(directory.files() == 1);
  CHECK(std::filesystem::exists(directory / "diffusion_pytorch_model.safetensors"));
  check(directory.path());
}

TEST_CASE("CheckpointWriter: shards, modules in one piece, and an index") {
  const TemporaryDirectory directory;
  save(directory.path(), 75);
  CHECK(directory.files() == 4);
  check(directory.path());
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  const auto shard = [&](const char* name) { return checkpoint.file_of(name).filename().string(); };
  CHECK(shard("a.weight") == "diffusion_pytorch_model-00001-of-00003.safetensors");
  CHECK(shard("a.weight.absmax") == shard("a.weight"));
  CHECK(shard("b.weight") == "diffusion_pytorch_model-00002-of-00003.safetensors");  // larger than a shard
  CHECK(shard("c") == "diffusion_pytorch_model-00003-of-00003.safetensors");
  CHECK(shard("d") == shard("c"));
  CHECK(TemporaryDirectory::read(directory / "diffusion_pytorch_model.safetensors.index.json").starts_with(R"({
  "metadata": {
    "total_size": 320
  },
  "weight_map": {
    "a.bias": "diffusion_pytorch_model-00001-of-00003.safetensors",
    "a.weight": )"));
}

TEST_CASE("CheckpointWriter: what an earlier save left does not outlive the next one") {
  const TemporaryDirectory directory;
  directory.write("diffusion_pytorch_model-notes.safetensors", "mine");
  directory.write("config.json", "{}");
  save(directory.path(), 75);
  CHECK(directory.files() == 6);
  save(directory.path(), 1000);
  CHECK(directory.files() == 3);
  check(directory.path());
  save(directory.path(), 250);
  CHECK(directory.files() == 5);
  CHECK_FALSE(std::filesystem::exists(directory / "diffusion_pytorch_model.safetensors"));
  check(directory.path());
}

TEST_CASE("CheckpointWriter: errors leave what was there") {
  const TemporaryDirectory directory;
  save(directory.path(), 1000);
  {
    CheckpointWriter writer(directory.path(), stem, tensors, 75);
    CHECK(writer.shards() == 3);
    CHECK(first_missing(message_of<ebb::ShapeError>([&] { writer.commit(); }), {"bytes were not supplied"}) == "");
    CHECK(first_missing(message_of<ebb::ShapeError>([&] { writer.write("x", {}); }), {"'x'", "not declared"}) == "");
  }
  CHECK(directory.files() == 1);
  check(directory.path());
  {
    const ebb::testing::FileSizeLimit limit(100);
    CHECK(first_missing(message_of<ebb::FileError>([&] { save(directory.path(), 75); }),
                        {directory.path().string(), "cannot be written", "File too large"}) == "");
  }
  CHECK(directory.files() == 1);
  CHECK_THROWS_AS(CheckpointWriter(directory / "none", stem, tensors), ebb::FileError);
  CHECK(first_missing(message_of<ebb::FileError>([&] {
                        CheckpointWriter(directory.path(), stem, {{"a", DType::u8, {9}}, {"a", DType::u8, {9}}}, 10);
                      }),
                      {"'a'", "already taken"}) == "");
  CHECK(directory.files() == 1);
}

TEST_CASE("CheckpointWriter: a full disk at the index leaves the earlier save whole") {
  for (const std::size_t earlier : {75u, 250u, 1000u}) {  // the same shards, other shards, one file
    const TemporaryDirectory directory;
    save(directory.path(), earlier);
    const std::size_t files = directory.files();
    {
      CheckpointWriter writer(directory.path(), stem, tensors, 75);
      write_all(writer, 50);
      const ebb::testing::FileSizeLimit limit(100);
      CHECK(first_missing(message_of<ebb::FileError>([&] { writer.commit(); }),
                          {"safetensors.index.json", "File too large"}) == "");
    }
    CHECK(directory.files() == files);
    check(directory.path());
  }
}

TEST_CASE("CheckpointWriter: a shard that cannot be renamed never leaves old and new ones under one index") {
  for (const std::size_t earlier : {75u, 250u, 1000u})
    for (const char* obstructed : {"00001", "00002"}) {
      CAPTURE(earlier);
      CAPTURE(obstructed);
      const TemporaryDirectory directory;
      save(directory.path(), earlier);
      const auto shard = directory / ("diffusion_pytorch_model-" + std::string(obstructed) + "-of-00003.safetensors");
      const auto aside = directory / "aside";
      const bool same_shards = std::filesystem::exists(shard);
      if (same_shards) std::filesystem::rename(shard, aside);
      {
        CheckpointWriter writer(directory.path(), stem, tensors, 75);
        write_all(writer, 50);
        std::filesystem::create_directories(shard / "in the way");
        CHECK(first_missing(message_of<ebb::FileError>([&] { writer.commit(); }),
                            {shard.string(), "cannot be renamed"}) == "");
      }
      std::filesystem::remove_all(shard);
      if (same_shards) {
        std::filesystem::rename(aside, shard);
        CHECK(first_missing(message_of<ebb::FileError>([&] { Checkpoint::open(directory.path()); }), {"no weights"}) ==
              "");
      } else {
        check(directory.path());
      }
      save(directory.path(), 75, 50);
      CHECK(directory.files() == 4);
      check(directory.path(), 50);
    }
}
