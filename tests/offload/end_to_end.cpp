// The whole path of a component: described by its members, kept in a file, streamed through a bounded arena.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "ebb/host/stream.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/module/outline.hpp"
#include "ebb/nn/embedding.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/offload/disk.hpp"
#include "ebb/offload/group.hpp"

namespace {

using ebb::field;

struct Block {
  static constexpr ebb::Level level = ebb::Level::block;
  ebb::nn::Linear first, second;
  static consteval auto members() { return std::tuple{field{"first", &Block::first}, field{"second", &Block::second}}; }
};
struct Model {
  static constexpr ebb::Level level = ebb::Level::model;
  ebb::nn::Embedding table;
  ebb::nn::Linear in;
  ebb::Repeat<Block> blocks;
  static consteval auto members() {
    return std::tuple{field{"table", &Model::table}, field{"in", &Model::in}, field{"blocks", &Model::blocks}};
  }
};

Model make() {
  Model model{ebb::nn::Embedding::make(50, 16), ebb::nn::Linear::make(16, 16), {}};
  for (int i = 0; i < 5; ++i) model.blocks.push_back({ebb::nn::Linear::make(16, 48), ebb::nn::Linear::make(48, 16)});
  return model;
}

void pattern(std::span<std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i * 2654435761u) >> 13);
}

}  // namespace

TEST_CASE("every parameter of a model reads its own bytes under every policy, from memory and from disk") {
  Model model = make();
  const ebb::Outline outline = ebb::outline_of(model, "transformer");
  std::vector<std::byte> expected(outline.end);
  pattern(expected);

  const auto directory = std::filesystem::temp_directory_path() / ebb::concat("ebb-end-to-end-", ::getpid());
  {
    const auto home =
        ebb::HomeFile::open_or_create(directory, {.component = outline.name, .bytes = outline.end}, pattern);
    for (const char* name : {"none", "model", "block", "block:2", "leaf", "budget:12K"}) {
      CAPTURE(name);
      const ebb::OffloadSpec policy = ebb::OffloadSpec::parse(name);
      using Group = ebb::OffloadGroup<ebb::OffloadSpec, ebb::host::Streams>;
      const std::vector<ebb::Component> components{ebb::component_of(outline, home.bytes().data(), policy)};
      ebb::AlignedBuffer arena(Group::plan(policy, components).arena_bytes);
      CHECK((policy.text() == "none" ? arena.size() == 0 : arena.size() > 0));
      ebb::host::Streams streams;
      Group group(policy, streams, ebb::host::Stream::compute, ebb::host::Stream::copy, components, arena.bytes());
      ebb::for_each_reference(outline, [&](const ebb::ParameterReference& parameter) {
        parameter.bind(group.address(0, parameter.offset));
      });
      const auto check = [&](const auto& parameter, std::size_t offset) {
        CHECK(std::memcmp(parameter.segment(), expected.data() + offset, parameter.bytes()) == 0);
      };
      const auto forward = [&](ebb::nn::Linear& linear) {
        const auto lease = group.enter(ebb::id_of(linear));
        ebb::for_each_reference(outline, [&](const ebb::ParameterReference& parameter) {
          if (parameter.object == &linear.weight) check(linear.weight, parameter.offset);
        });
      };
      for (int pass = 0; pass < 3; ++pass) {
        const auto root = group.enter(ebb::id_of(model));
        check(model.table.weight, 0);
        forward(model.in);
        for (Block& block : model.blocks) {
          const auto lease = group.enter(ebb::id_of(block));
          forward(block.first);
          forward(block.second);
        }
      }
      for (int tile = 0; tile < 3; ++tile) forward(model.blocks[2].second);  // called without its model
      CHECK(group.peak_bytes() <= arena.size());
    }
  }
  std::filesystem::remove_all(directory);
}
