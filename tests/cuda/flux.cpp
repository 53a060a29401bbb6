// The Flux pipeline on a GPU: against diffusers' results, against the host, and under every policy.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "common/engine.hpp"
#include "flux/pipeline.hpp"
#include "support/flux_request.hpp"
#include "support/flux_result.hpp"
#include "support/golden.hpp"
#include "support/repeats.hpp"
#include "support/session.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

// Pipelines of tests/golden, each a test case: those take minutes under compute-sanitizer.
struct Dev {
  static constexpr const char* name = "dev";
};
struct Schnell {
  static constexpr const char* name = "schnell";
};
struct ThreeHeads {
  static constexpr const char* name = "three_heads";
};
struct Wide {
  static constexpr const char* name = "wide";
};

const std::string guide = "transformer=nf4,text_encoder_2=nf4";

examples::Machine<flux::Pipeline>& gpu() {
  static const auto machine = examples::cuda_machine<flux::Pipeline>(0, std::numeric_limits<std::size_t>::max());
  return *machine;
}

struct Session : testing::Session<flux::Pipeline> {
  Session(const testing::Golden& golden, const std::string& quantize, DType compute, const FormatChoice& format = {})
      : testing::Session<flux::Pipeline>(gpu(), golden, quantize, compute, format) {}
};

bool same(const flux::Result& a, const flux::Result& b) {
  return a.latents.values == b.latents.values &&
         std::equal(a.pictures.begin(), a.pictures.end(), b.pictures.begin(), b.pictures.end(),
                    [](const auto& left, const auto& right) { return left.rgb == right.rgb; });
}

}  // namespace

TEST_CASE_TEMPLATE("the pipeline on a GPU equals diffusers in float32, dense and in 4 bits", P, Dev, Schnell,
                   ThreeHeads, Wide) {
  const testing::Golden golden(P::name);
  auto request = testing::request_of(golden);
  Session dense(golden, "", DType::f32);
  const auto result = dense.run(request);
  CHECK(testing::relative_error(result.latents.values, golden.floats("latents")) < 1e-4);
  CHECK(testing::largest_difference(result, golden.bytes("image")) <= 1);
  if (golden.has("image_tiled")) {
    request.tiling = examples::Tiling::on;
    CHECK(testing::largest_difference(dense.run(request), golden.bytes("image_tiled")) <= 1);
    request.tiling = examples::Tiling::off;
  }
  const auto quantized = Session(golden, guide, DType::f32).run(request);
  CHECK(testing::relative_error(quantized.latents.values, golden.floats("nf4.latents")) < 1e-4);
  CHECK(testing::largest_difference(quantized, golden.bytes("nf4.image")) <= 1);
}

TEST_CASE_TEMPLATE("16-bit activations on a GPU stay close to diffusers in the same type", P, Dev, Schnell, ThreeHeads,
                   Wide) {
  const testing::Golden golden(P::name);
  const auto error = [&](DType type, const char* key) {
    const auto result = Session(golden, "", type).run(testing::request_of(golden));
    return testing::relative_error(result.latents.values, golden.floats(key));
  };
  CHECK(error(DType::bf16, "bf16.latents") < 2e-2);
  CHECK(error(DType::f16, "latents") < 2e-2);
}

TEST_CASE("every format gives on a GPU what it gives on the host") {
  const testing::Golden golden("dev");
  const auto request = testing::request_of(golden);
  const auto host = examples::host_machine<flux::Pipeline>(1);
  FormatChoice nested, wide;
  nested.block.nested = DoubleQuantization::on;
  wide.block.block_size = 128;
  const auto agrees = [&](const std::string& quantize, const FormatChoice& format, double bound) {
    CAPTURE(quantize);
    Session session(golden, quantize, DType::f32, format);
    CHECK(testing::relative_error(session.run(request).latents.values, session.run_on(*host, request).latents.values) <
          bound);
  };
  agrees("nf4", nested, 1e-4);
  agrees("nf4", wide, 1e-4);
  agrees("fp4", {}, 1e-4);
  agrees("fp8", {}, 1e-4);
  // A value that rounds to another code of the activations moves the result by more than float32 does.
  agrees("int8", {}, 1e-2);
}

TEST_CASE_TEMPLATE("no policy, run length or lookahead changes a bit on a GPU, nor do graphs", P, Dev, Wide) {
  const testing::Golden golden(P::name);
  auto request = testing::request_of(golden);
  request.steps = 7;  // the first runs as issued, one or more are recorded, the others are launches
  Session session(golden, guide, DType::bf16);
  const auto resident = session.run(request);
  CHECK(same(session.run(request), resident));
  const testing::TemporaryDirectory directory;
  for (const OffloadSpec& policy : {OffloadSpec(NoOffload{}), OffloadSpec(LeafOffload{1})}) {
    CHECK(same(session.run_traced(request, policy, directory / "trace.json"), resident));
    REQUIRE(session.traffic().gpu);
    CHECK(session.traffic().gpu->graph_launches == 0);  // what is traced is not recorded
  }
  std::size_t all = 0;
  for (const auto& home : session.weights().homes()) all += home.outline.end - home.outline.begin;
  std::vector<OffloadSpec> policies{OffloadSpec(ModelOffload{})};
  constexpr std::array<std::size_t, 4> lookaheads{1, 0, 2, 3};
  constexpr std::array<std::size_t, 3> runs{2, 1, 3}, parts{5, 3, 9};
  for (const std::size_t lookahead : testing::some_of(lookaheads)) {
    for (const std::size_t run : testing::some_of(runs)) policies.emplace_back(BlockOffload{run, lookahead});
    policies.emplace_back(LeafOffload{lookahead});
    for (const std::size_t part : testing::some_of(parts)) policies.emplace_back(Budget{all * part / 10, lookahead});
  }
  for (const OffloadSpec& policy : policies) {
    CAPTURE(policy.text());
    CAPTURE(policy.settings().lookahead);
    CHECK(same(session.run(request, policy), resident));
    CHECK(session.traffic().arena_bytes <= session.plan().bound_bytes);
    CHECK(session.traffic().bytes_moved > 0);
    REQUIRE(session.traffic().gpu);
    CHECK(session.traffic().gpu->graph_launches == request.steps - 1);
  }
}

TEST_CASE("modulations that are made between steps, whose weights take the place of others, change no bit on a GPU") {
  const testing::Golden golden("dev");
  auto request = testing::request_of(golden);
  request.steps = 7;
  request.images_per_prompt = 16;  // modulations of four steps at a time
  Session session(golden, guide, DType::bf16);
  const auto resident = session.run(request);
  std::size_t all = 0;
  for (const auto& home : session.weights().homes()) all += home.outline.end - home.outline.begin;
  const std::array policies{OffloadSpec(LeafOffload{1}), OffloadSpec(ModelOffload{}), OffloadSpec(BlockOffload{1, 1}),
                            OffloadSpec(Budget{all / 2, 1})};
  for (const OffloadSpec& policy : testing::some_of(policies)) {
    CAPTURE(policy.text());
    CHECK(same(session.run(request, policy), resident));
    REQUIRE(session.traffic().gpu);
    CHECK(session.traffic().gpu->graph_launches == request.steps - 1);
  }
}

TEST_CASE("a GPU that is not there is an error that says what is") {
  CHECK_THROWS_WITH_AS(examples::cuda_machine<flux::Pipeline>(1000, 0), doctest::Contains("no GPU 1000"), ConfigError);
}
