#include "wan/pipeline.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/engine.hpp"
#include "support/golden.hpp"
#include "support/session.hpp"
#include "support/temporary_directory.hpp"
#include "support/wan_request.hpp"

using namespace ebb;

namespace {

const char* const pipelines[] = {"two_blocks", "one_block", "three_blocks"};
const std::string guide = "transformer=nf4,text_encoder=nf4";

void nobody(const char*, std::size_t, std::size_t) {}

/// All frames of all videos, in order.
struct Frames {
  std::vector<std::uint8_t> bytes;
  std::size_t count = 0;

  wan::FrameSink sink() {
    return [this](std::size_t, Image<const std::uint8_t> frames) {
      bytes.insert(bytes.end(), frames.elements().begin(), frames.elements().end());
      count += frames.batch;
    };
  }
};

examples::Machine<wan::Pipeline>& host() {
  static const auto machine = examples::host_machine<wan::Pipeline>(1);
  return *machine;
}

struct Session : testing::Session<wan::Pipeline> {
  explicit Session(const testing::Golden& golden, const std::string& quantize = "", DType compute = DType::f32,
                   const std::filesystem::path& disk = {})
      : testing::Session<wan::Pipeline>(host(), golden, quantize, compute, {}, disk) {}
};

/// Of the video that the golden keeps, which is the last.
int largest_level_difference(const std::vector<std::uint8_t>& found, const std::vector<float>& expected) {
  if (expected.empty() || found.size() < expected.size()) return 256;
  int largest = 0;
  const std::size_t skipped = found.size() - expected.size();
  for (std::size_t i = 0; i < expected.size(); ++i)
    largest = std::max(largest, std::abs(int{found[skipped + i]} - static_cast<int>(expected[i] * 255.0f)));
  return largest;
}

}  // namespace

TEST_CASE("Wan's whole pipeline equals diffusers in float32") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    Session session(golden);
    auto request = testing::wan_request_of(golden);
    Frames frames;
    request.sink = frames.sink();
    const auto result = session.run(request);
    CHECK(testing::relative_error(result.latents.values, golden.floats("latents")) < 1e-4);
    CHECK(frames.count == request.batch() * request.frames);
    CHECK(largest_level_difference(frames.bytes, golden.floats("video")) <= 1);
  }
}

TEST_CASE("Wan's whole pipeline in 4 bits equals diffusers on bitsandbytes' weights") {
  const testing::Golden golden("three_blocks", "wan");
  CHECK(testing::relative_error(Session(golden, guide).run(testing::wan_request_of(golden)).latents.values,
                                golden.floats("nf4.latents")) < 1e-4);
}

TEST_CASE("Wan with 16-bit activations stays close to diffusers in the same type") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    const auto request = testing::wan_request_of(golden);
    CHECK(testing::relative_error(Session(golden, "", DType::bf16).run(request).latents.values,
                                  golden.floats("bf16.latents")) < 2e-2);
    CHECK(testing::relative_error(Session(golden, "", DType::f16).run(request).latents.values,
                                  golden.floats("latents")) < 2e-2);
  }
}

TEST_CASE("both sides of guidance in one batch, noise and text states from files: the same video") {
  const testing::Golden golden("three_blocks", "wan");
  Session session(golden);
  auto request = testing::wan_request_of(golden);
  const auto apart = session.run(request);
  request.guidance_order = wan::Guidance::together;
  CHECK(testing::relative_error(session.run(request).latents.values, apart.latents.values) < 1e-5);
  request.seed = 99;
  request.latents = {golden.shape("noise"), golden.floats("noise")};
  request.prompts.clear();
  request.embeds = {golden.shape("umt5.states"), golden.floats("umt5.states")};
  request.negative_embeds = {golden.shape("negative.umt5.states"), golden.floats("negative.umt5.states")};
  CHECK(testing::relative_error(session.run(request).latents.values, golden.floats("latents")) < 1e-4);
}

TEST_CASE("no policy, run length, lookahead or tier changes a bit of a video") {
  for (const char* name : {"two_blocks", "three_blocks"}) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    auto request = testing::wan_request_of(golden);
    request.steps = 2;
    Frames frames;
    request.sink = frames.sink();
    Session session(golden, guide, DType::bf16);
    const auto resident = session.run(request);
    const auto same = [&](const wan::Result& result) {
      return result.latents.values == resident.latents.values &&
             (!request.sink || result.frames_hash == resident.frames_hash);
    };
    std::size_t all = 0;
    for (const auto& home : session.weights().homes()) all += home.outline.end - home.outline.hoisted_begin;
    CHECK(session.traffic().arena_bytes == all);
    CHECK(session.traffic().bytes_moved == 0);
    std::vector<OffloadSpec> policies{OffloadSpec(ModelOffload{})};
    // The second pipeline, which differs by its batch, with one of each.
    const bool all_of_them = golden.call().at("prompt").is_string();
    for (std::size_t lookahead = all_of_them ? 0 : 1; lookahead < (all_of_them ? 3u : 2u); ++lookahead) {
      for (std::size_t run = 1; run < (all_of_them ? 4u : 2u); ++run)
        policies.emplace_back(BlockOffload{run, lookahead});
      policies.emplace_back(LeafOffload{lookahead});
      for (const std::size_t part : {4, 8}) policies.emplace_back(Budget{all * part / 10, lookahead});
    }
    for (const OffloadSpec& policy : policies) {
      CAPTURE(policy.text());
      // Decoding takes longer than all else.
      request.sink =
          policy.settings().lookahead == 1 && policy.settings().blocks_per_unit <= 1 ? frames.sink() : wan::FrameSink{};
      CHECK(same(session.run(request, policy)));
      CHECK(session.traffic().bytes_moved > 0);
      CHECK(session.traffic().arena_bytes < all);
    }
    request.sink = all_of_them ? frames.sink() : wan::FrameSink{};
    for (const char* excluded : {"text_encoder", "transformer", "vae"})
      CHECK(same(session.run(request, OffloadSpec(LeafOffload{}), {excluded})));
    const testing::TemporaryDirectory directory;
    for (int time = 0; time < 2; ++time) {  // written, then reused
      Session disk(golden, guide, DType::bf16, directory.path());
      CHECK(same(disk.run(request, OffloadSpec(LeafOffload{}))));
    }
  }
}

TEST_CASE("what moves in a step is less than the transformer: text and timestep were read before") {
  const testing::Golden golden("two_blocks", "wan");
  Session session(golden, guide, DType::bf16);
  auto request = testing::wan_request_of(golden);
  request.guidance = 1.0;
  (void)session.run(request, OffloadSpec(BlockOffload{}));
  const auto& outline = session.weights().homes()[1].outline;
  CHECK(outline.name == "transformer");
  CHECK(outline.begin > outline.hoisted_begin);
  CHECK(session.traffic().denoise_bytes_moved / request.steps < outline.end - outline.hoisted_begin);
}

TEST_CASE("a video request that does not fit is refused, or fitted with a warning, before work begins") {
  const testing::Golden golden("two_blocks", "wan");
  const auto model = wan::Model::open(golden.directory());
  const auto refused = [&](auto change, const char* word) {
    auto request = testing::wan_request_of(golden);
    change(request);
    std::vector<std::string> warnings;
    CHECK_THROWS_WITH_AS(wan::check(request, model, warnings), doctest::Contains(word), ConfigError);
  };
  refused([](auto& request) { request.height = 0; }, "height");
  refused([](auto& request) { request.width = 40000; }, "width");
  refused([](auto& request) { request.frames = 0; }, "num-frames");
  refused([](auto& request) { request.frames = 1000000; }, "num-frames");
  refused([](auto& request) { request.steps = 0; }, "steps");
  refused([](auto& request) { request.videos_per_prompt = 0; }, "num-videos");
  refused([](auto& request) { request.max_sequence_length = 513; }, "max-sequence-length");
  for (const double scale : {std::nan(""), 1e39, -1e39})
    refused([&](auto& request) { request.guidance = scale; }, "guidance");
  refused([](auto& request) { request.flow_shift = 0; }, "flow-shift");
  refused(
      [](auto& request) {
        request.prompts.clear();
        request.negative_prompts = {"blurry"};
        request.embeds = request.negative_embeds = {{1, 4, 32}, std::vector<float>(128)};
      },
      "either a negative prompt or");
  refused([](auto& request) { request.prompts.clear(); }, "prompt");
  refused([](auto& request) { request.negative_prompts = {"a", "b"}; }, "negative-prompt");
  refused([](auto& request) { request.latents = {{1, 16, 3, 4, 5}, std::vector<float>(960)}; }, "axis 4");
  refused([](auto& request) { request.negative_embeds = {{1, 4, 32}, std::vector<float>(128)}; }, "prompt_embeds");
  refused(
      [](auto& request) {
        request.prompts.clear();
        request.embeds = {{1, 4, 31}, std::vector<float>(124)};
      },
      "channels");
  refused([](auto& request) { request.height = 50; },
          "height: expected a multiple of 16, found 50; the nearest are 48 and 64");
  refused([](auto& request) { request.width = 24; }, "the nearest are 16 and 32");
  auto request = testing::wan_request_of(golden);
  request.height = 48;
  request.frames = 12;
  request.guidance = 1.0;
  std::vector<std::string> warnings;
  wan::check(request, model, warnings);
  CHECK(request.height == 48);
  CHECK(request.frames == 13);
  CHECK(warnings.size() == 2);  // frames, negative prompt
  wan::check(request, model, warnings);
  CHECK(warnings.size() == 2);
}

TEST_CASE("sizes of videos are multiples of 16, whatever the tokens' size, and rounded down to larger tokens") {
  const auto fitted = [](const wan::Model& model, std::size_t height, std::vector<std::string>& warnings) {
    wan::Request request;
    request.prompts = {"a cat"};
    request.height = height;
    request.width = 64;
    wan::check(request, model, warnings);
    return request.height;
  };
  std::vector<std::string> warnings;
  const auto small = wan::Model::open(testing::Golden("one_block", "wan").directory());
  REQUIRE(small.token_pixels() == 8);
  CHECK(fitted(small, 16, warnings) == 16);
  CHECK_THROWS_WITH_AS(fitted(small, 24, warnings), doctest::Contains("the nearest are 16 and 32"), ConfigError);
  CHECK_THROWS_WITH_AS(fitted(small, 8, warnings), doctest::Contains("expected 16 to"), ConfigError);
  CHECK(warnings.empty());

  auto large = wan::Model::open(testing::Golden("two_blocks", "wan").directory());
  large.vae.config.multipliers.push_back(4);
  REQUIRE(large.token_pixels() == 32);
  CHECK(fitted(large, 64, warnings) == 64);
  CHECK(warnings.empty());
  CHECK(fitted(large, 80, warnings) == 64);
  CHECK(warnings == std::vector<std::string>{"height 80 is not a multiple of 32: 64 is used"});
  CHECK_THROWS_WITH_AS(fitted(large, 88, warnings), doctest::Contains("the nearest are 64 and 96"), ConfigError);
  CHECK_THROWS_WITH_AS(fitted(large, 16, warnings), doctest::Contains("expected 32 to"), ConfigError);
}

TEST_CASE("the hash of frames is that of one after another, however many come at a time") {
  std::vector<std::uint8_t> bytes(6 * 4 * 5 * 3);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * i);
  const auto hash = [&](std::size_t at_once) {
    std::uint64_t result = 0;
    for (std::size_t first = 0; first < 6; first += at_once)
      result = wan::detail::hash_of({bytes.data() + first * 60, std::min(at_once, 6 - first), 4, 5, 3}, result);
    return result;
  };
  const auto one_by_one = hash(1);
  for (const std::size_t at_once : {2, 4, 6}) CHECK(hash(at_once) == one_by_one);
  bytes.back() ^= 1;
  CHECK(hash(4) != one_by_one);
}

TEST_CASE("the difference of two videos is that of their latents; NaN and other frames count as infinite") {
  const float infinite = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const auto with = [](std::vector<float> latents, std::uint64_t frames_hash) {
    wan::Result result;
    result.latents = {Shape{1, latents.size()}, std::move(latents)};
    result.frames_hash = frames_hash;
    return result;
  };
  const auto base = with({1, 2, 3}, 7);
  CHECK(largest_difference(base, base) == 0);
  CHECK(largest_difference(with({1, 2.5, 3}, 8), base) == 0.5f);
  CHECK(largest_difference(with({1, 2, 3}, 8), base) == infinite);
  CHECK(largest_difference(with({1, nan, 3}, 7), base) == infinite);
  CHECK(largest_difference(base, with({nan, 2, 3}, 7)) == infinite);
}

TEST_CASE("a signal during a step ends the loop of a video after it") {
  const testing::Golden golden("two_blocks", "wan");
  Session session(golden);
  auto request = testing::wan_request_of(golden);
  request.steps = 4;
  CHECK(session.steps_until_signal(request) == std::vector<std::size_t>{0, 1});
}

TEST_CASE("NaN in a weight is an error that names the phase, not a black video") {
  const testing::Golden golden("two_blocks", "wan");
  auto request = testing::wan_request_of(golden);
  request.sink = [](auto...) {};
  const auto broken = [&](auto parameter) {
    auto model = wan::Model::open(golden.directory());
    const examples::Weights weights(model, {});
    const auto machine = examples::host_machine<wan::Pipeline>(1);
    const auto engine = machine->engine(model, weights, {});
    const_cast<float&>(parameter(model).values()[0]) = std::nanf("");
    return testing::message_of<ValueError>([&] { (void)engine->run(request, nobody); });
  };
  const auto denoise = broken([](wan::Model& model) -> Vector& { return model.transformer.out.bias; });
  CHECK(testing::first_missing(denoise, {"denoise: the latents after step " + std::to_string(request.steps), "NaN"}) ==
        "");
  const auto decode = broken([](wan::Model& model) -> Vector& { return model.vae.conv_out.bias; });
  CHECK(testing::first_missing(decode, {"decode: the frames", "NaN"}) == "");
}

TEST_CASE("a checkpoint of another pipeline says what is supported") {
  const testing::Golden golden("two_blocks", "wan");
  const auto opened = [&](const nlohmann::json& change) {
    const testing::TemporaryDirectory directory;
    std::filesystem::copy(golden.directory(), directory.path(),
                          std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
    auto index = nlohmann::json::parse(std::ifstream(directory / "model_index.json"));
    index.merge_patch(change);
    std::ofstream(directory / "model_index.json") << index;
    (void)wan::Model::open(directory.path());
  };
  CHECK_NOTHROW(opened(nlohmann::json::object()));
  CHECK_THROWS_WITH_AS(opened({{"_class_name", "WanImageToVideoPipeline"}}), doctest::Contains("Wan2.1-T2V"),
                       ConfigError);
  CHECK_THROWS_WITH_AS(opened({{"boundary_ratio", 0.875}}), doctest::Contains("Wan 2.2"), ConfigError);
  CHECK_THROWS_WITH_AS(opened({{"transformer_2", {"diffusers", "WanTransformer3DModel"}}}),
                       doctest::Contains("Wan 2.2"), ConfigError);
  CHECK_THROWS_WITH_AS(opened({{"transformer", {"diffusers", "WanVACETransformer3DModel"}}}),
                       doctest::Contains("WanTransformer3DModel"), ConfigError);
  CHECK_THROWS_WITH_AS(opened({{"scheduler", {"diffusers", "DDIMScheduler"}}}),
                       doctest::Contains("UniPCMultistepScheduler"), ConfigError);
}

TEST_CASE("prompts of all kinds make a video") {
  const testing::Golden golden("one_block", "wan");
  Session session(golden, "nf4", DType::bf16);
  auto request = testing::wan_request_of(golden);
  request.steps = 1;
  std::string words;
  for (int i = 0; i < 10000; ++i) words += "word ";
  for (const std::string& prompt : {std::string(), std::string("\xf0\x9f\x90\xb1\xe2\x80\x8d\xf0\x9f\x91\xa4"), words,
                                    std::string("\xff broken \xc3"), std::string("&lt;&#x80;&nosuch;")}) {
    request.prompts = {prompt};
    const auto result = session.run(request);
    CHECK(std::all_of(result.latents.values.begin(), result.latents.values.end(),
                      [](float x) { return std::isfinite(x); }));
    CHECK((prompt.size() > 1000) == !result.warnings.empty());
  }
}
