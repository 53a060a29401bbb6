// The Wan pipeline on a GPU: against diffusers' results, and under every policy.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "common/engine.hpp"
#include "support/golden.hpp"
#include "support/repeats.hpp"
#include "support/session.hpp"
#include "support/temporary_directory.hpp"
#include "support/wan_request.hpp"
#include "wan/pipeline.hpp"

using namespace ebb;

namespace {

// Pipelines of tests/golden, each a test case: those take minutes under compute-sanitizer.
struct OneBlock {
  static constexpr const char* name = "one_block";
};
struct TwoBlocks {
  static constexpr const char* name = "two_blocks";
};
struct ThreeBlocks {
  static constexpr const char* name = "three_blocks";
};

const std::string guide = "transformer=nf4,text_encoder=nf4";

examples::Machine<wan::Pipeline>& gpu() {
  static const auto machine = examples::cuda_machine<wan::Pipeline>(0, std::numeric_limits<std::size_t>::max());
  return *machine;
}

struct Session : testing::Session<wan::Pipeline> {
  Session(const testing::Golden& golden, const std::string& quantize, DType compute)
      : testing::Session<wan::Pipeline>(gpu(), golden, quantize, compute) {}
  examples::WanVaeConfig& vae() { return model().vae.config; }
};

}  // namespace

TEST_CASE_TEMPLATE("Wan on a GPU equals diffusers in float32", P, OneBlock, TwoBlocks, ThreeBlocks) {
  const testing::Golden golden(P::name, "wan");
  auto request = testing::wan_request_of(golden);
  std::vector<std::uint8_t> bytes;
  request.sink = [&](std::size_t, Image<const std::uint8_t> frames) {
    bytes.insert(bytes.end(), frames.elements().begin(), frames.elements().end());
  };
  Session dense(golden, "", DType::f32);
  CHECK(testing::relative_error(dense.run(request).latents.values, golden.floats("latents")) < 1e-4);
  const auto video = golden.floats("video");  // of the last prompt
  REQUIRE(bytes.size() >= video.size());
  int largest = 0;
  for (std::size_t i = 0; i < video.size(); ++i)
    largest =
        std::max(largest, std::abs(int{bytes[bytes.size() - video.size() + i]} - static_cast<int>(video[i] * 255.0f)));
  CHECK(largest <= 1);
  request.sink = {};
  request.guidance_order = wan::Guidance::together;
  CHECK(testing::relative_error(dense.run(request).latents.values, golden.floats("latents")) < 1e-4);
}

TEST_CASE("Wan in 4 bits on a GPU equals diffusers in float32") {
  const testing::Golden golden("three_blocks", "wan");
  CHECK(testing::relative_error(Session(golden, guide, DType::f32).run(testing::wan_request_of(golden)).latents.values,
                                golden.floats("nf4.latents")) < 1e-4);
}

TEST_CASE_TEMPLATE("Wan's frames on a GPU are those of the host, in tiles and with few latent frames at a time", P,
                   OneBlock, TwoBlocks, ThreeBlocks) {
  const auto host = examples::host_machine<wan::Pipeline>(1);
  const testing::Golden golden(P::name, "wan");
  Session session(golden, "", DType::f32);
  const std::size_t scale = session.vae().spatial_scale();
  session.vae().tiles = {3 * scale, 2 * scale, 2 * scale, scale};  // the last of a row or a column is smaller
  auto request = testing::wan_request_of(golden);
  request.steps = 1;
  std::vector<std::uint8_t> bytes;
  request.sink = [&](std::size_t, Image<const std::uint8_t> frames) {
    bytes.insert(bytes.end(), frames.elements().begin(), frames.elements().end());
  };
  const auto frames_of = [&](examples::Machine<wan::Pipeline>& machine) {
    bytes.clear();
    (void)session.run_on(machine, request);
    return bytes;
  };
  const std::array<std::size_t, 2> pixels{session.vae().pixels_at_once, 1};
  for (const auto tiling : {examples::Tiling::off, examples::Tiling::on})
    for (const std::size_t pixels_at_once : testing::some_of(pixels)) {
      CAPTURE(pixels_at_once);
      request.tiling = tiling;
      session.vae().pixels_at_once = pixels_at_once;
      const auto found = frames_of(gpu()), expected = frames_of(*host);
      REQUIRE(found.size() == expected.size());
      REQUIRE(!found.empty());
      int largest = 0;
      for (std::size_t i = 0; i < found.size(); ++i)
        largest = std::max(largest, std::abs(int{found[i]} - int{expected[i]}));
      CHECK(largest <= 1);
    }
}

TEST_CASE_TEMPLATE("Wan with 16-bit activations on a GPU stays close to diffusers in the same type", P, OneBlock,
                   TwoBlocks, ThreeBlocks) {
  const testing::Golden golden(P::name, "wan");
  const auto request = testing::wan_request_of(golden);
  CHECK(testing::relative_error(Session(golden, "", DType::bf16).run(request).latents.values,
                                golden.floats("bf16.latents")) < 2e-2);
  CHECK(testing::relative_error(Session(golden, "", DType::f16).run(request).latents.values, golden.floats("latents")) <
        2e-2);
}

TEST_CASE_TEMPLATE("no policy, run length or lookahead changes a bit of a video on a GPU, nor do graphs", P, TwoBlocks,
                   ThreeBlocks) {
  const testing::Golden golden(P::name, "wan");
  auto request = testing::wan_request_of(golden);
  request.steps = 7;  // the first runs as issued, one or more are recorded, the others are launches
  request.sink = [](std::size_t, Image<const std::uint8_t>) {};
  Session session(golden, guide, DType::bf16);
  const auto resident = session.run(request);
  const auto same = [&](const wan::Result& result) {
    return result.latents.values == resident.latents.values && result.frames_hash == resident.frames_hash;
  };
  CHECK(same(session.run(request)));
  const testing::TemporaryDirectory directory;
  for (const OffloadSpec& policy : {OffloadSpec(NoOffload{}), OffloadSpec(LeafOffload{})})
    CHECK(same(session.run_traced(request, policy, directory / "timeline.json")));
  std::size_t all = 0;
  for (const auto& home : session.weights().homes()) all += home.outline.end - home.outline.begin;
  std::vector<OffloadSpec> policies{OffloadSpec(ModelOffload{})};
  constexpr std::array<std::size_t, 3> lookaheads{1, 0, 2};
  constexpr std::array<std::size_t, 2> runs{1, 2}, parts{4, 8};
  for (const std::size_t lookahead : testing::some_of(lookaheads)) {
    for (const std::size_t run : testing::some_of(runs)) policies.emplace_back(BlockOffload{run, lookahead});
    policies.emplace_back(LeafOffload{lookahead});
    for (const std::size_t part : testing::some_of(parts)) policies.emplace_back(Budget{all * part / 10, lookahead});
  }
  for (const OffloadSpec& policy : policies) {
    CAPTURE(policy.text());
    CAPTURE(policy.settings().lookahead);
    CHECK(same(session.run(request, policy)));
    CHECK(session.traffic().arena_bytes <= session.plan().bound_bytes);
    CHECK(session.traffic().bytes_moved > 0);
    REQUIRE(session.traffic().gpu);
    CHECK(session.traffic().gpu->graph_launches == request.steps - 1);
  }
}
