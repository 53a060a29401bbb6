#include "flux/pipeline.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "common/engine.hpp"
#include "support/flux_request.hpp"
#include "support/flux_result.hpp"
#include "support/golden.hpp"
#include "support/session.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

const char* const pipelines[] = {"dev", "schnell", "three_heads", "wide"};

void nobody(const char*, std::size_t, std::size_t) {}

examples::Machine<flux::Pipeline>& host() {
  static const auto machine = examples::host_machine<flux::Pipeline>(1);
  return *machine;
}

struct Session : testing::Session<flux::Pipeline> {
  Session(const testing::Golden& golden, const std::string& quantize, DType compute, const FormatChoice& format = {},
          const std::filesystem::path& disk = {})
      : testing::Session<flux::Pipeline>(host(), golden, quantize, compute, format, disk) {}
};

const std::string guide = "transformer=nf4,text_encoder_2=nf4";

}  // namespace

TEST_CASE("the whole pipeline equals diffusers in float32") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name);
    Session session(golden, "", DType::f32);
    auto request = testing::request_of(golden);
    const auto result = session.run(request);
    CHECK(testing::relative_error(result.latents.values, golden.floats("latents")) < 1e-4);
    CHECK(testing::largest_difference(result, golden.bytes("image")) <= 1);
    if (golden.has("image_tiled")) {
      request.tiling = examples::Tiling::on;
      CHECK(testing::largest_difference(session.run(request), golden.bytes("image_tiled")) <= 1);
    }
  }
}

TEST_CASE("the whole pipeline in 4 bits equals diffusers on bitsandbytes' weights") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name);
    Session session(golden, guide, DType::f32);
    const auto result = session.run(testing::request_of(golden));
    CHECK(testing::relative_error(result.latents.values, golden.floats("nf4.latents")) < 1e-4);
    CHECK(testing::largest_difference(result, golden.bytes("nf4.image")) <= 1);
  }
  const testing::Golden golden("dev");
  const auto error = [&](const std::string& quantize, const FormatChoice& format, const char* key) {
    return testing::relative_error(
        Session(golden, quantize, DType::f32, format).run(testing::request_of(golden)).latents.values,
        golden.floats(key));
  };
  FormatChoice nested, wide;
  nested.block.nested = DoubleQuantization::on;
  wide.block.block_size = 128;
  CHECK(error(guide, nested, "nf4_dq.latents") < 1e-4);
  CHECK(error(guide, wide, "nf4_bs128.latents") < 1e-4);
  CHECK(error("transformer=fp4,text_encoder_2=fp4", {}, "fp4.latents") < 1e-4);
}

TEST_CASE("16-bit activations stay close to diffusers in the same type") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name);
    Session session(golden, "", DType::bf16);
    CHECK(testing::relative_error(session.run(testing::request_of(golden)).latents.values,
                                  golden.floats("bf16.latents")) < 2e-2);
    Session half(golden, "", DType::f16);
    CHECK(testing::relative_error(half.run(testing::request_of(golden)).latents.values, golden.floats("latents")) <
          2e-2);
  }
}

TEST_CASE("noise from a file, embeddings from a file") {
  const testing::Golden golden("wide");
  Session session(golden, "", DType::f32);
  auto request = testing::request_of(golden);
  const Shape noise = golden.shape("noise_packed");
  request.latents = {noise[0], noise[1], noise[2], golden.floats("noise_packed")};
  request.seed = 1;
  const Shape states = golden.shape("t5.last_hidden_state");
  request.prompts.clear();
  request.prompts_2.clear();
  request.embeds = {states[0], states[1], states[2], golden.floats("t5.last_hidden_state")};
  request.pooled = {states[0], 1, golden.shape("clip.pooled")[1], golden.floats("clip.pooled")};
  CHECK(testing::relative_error(session.run(request).latents.values, golden.floats("latents")) < 1e-4);
}

TEST_CASE("no policy, run length, lookahead or tier changes a bit") {
  for (const char* name : {"dev", "wide"}) {
    CAPTURE(name);
    const testing::Golden golden(name);
    const auto request = testing::request_of(golden);
    Session session(golden, guide, DType::bf16);
    const auto resident = session.run(request);
    const auto same = [&](const flux::Result& result) {
      return result.latents.values == resident.latents.values &&
             std::equal(result.pictures.begin(), result.pictures.end(), resident.pictures.begin(),
                        [](const auto& a, const auto& b) { return a.rgb == b.rgb; });
    };
    std::size_t all = 0;
    for (const auto& home : session.weights().homes()) all += home.outline.end - home.outline.hoisted_begin;
    CHECK(session.traffic().arena_bytes == all);
    CHECK(session.traffic().bytes_moved == 0);
    std::vector<OffloadSpec> policies{OffloadSpec(ModelOffload{})};
    // Every run length up to more than all blocks, every lookahead up to more than all units; the second pipeline,
    // which differs by its batch, with one of each.
    const bool all_of_them = golden.call().at("num_images_per_prompt") == 1;
    for (std::size_t lookahead = all_of_them ? 0 : 1; lookahead < (all_of_them ? 4u : 2u); ++lookahead) {
      for (std::size_t run = 1; run < (all_of_them ? 5u : 2u); ++run)
        policies.emplace_back(BlockOffload{run, lookahead});
      policies.emplace_back(LeafOffload{lookahead});
      for (const std::size_t part : {3, 5, 9}) policies.emplace_back(Budget{all * part / 10, lookahead});
    }
    for (const OffloadSpec& policy : policies) {
      CAPTURE(policy.text());
      CAPTURE(policy.settings().lookahead);
      CHECK(same(session.run(request, policy)));
      CHECK(session.traffic().arena_bytes <= session.plan().bound_bytes);
      if (policy.settings().budget_bytes) CHECK(session.traffic().arena_bytes <= *policy.settings().budget_bytes);
      CHECK(session.traffic().bytes_moved > 0);
    }
    for (const char* excluded : {"text_encoder", "text_encoder_2", "transformer", "vae"})
      CHECK(same(session.run(request, OffloadSpec::parse("leaf"), {excluded})));
    CHECK_THROWS_WITH_AS(session.run(request, OffloadSpec::parse("leaf"), {"unet"}), doctest::Contains("transformer"),
                         ConfigError);
    CHECK_THROWS_WITH_AS(session.run(request, OffloadSpec::parse("budget:256")), doctest::Contains("budget"),
                         MemoryError);

    const testing::TemporaryDirectory directory;
    for (int time = 0; time < 2; ++time) {  // written, then reused
      Session disk(golden, guide, DType::bf16, {}, directory.path());
      CHECK(same(disk.run(request, OffloadSpec::parse("leaf"))));
      CHECK(same(disk.run(request, OffloadSpec::parse("none"))));
    }
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 4);
    Session other(golden, "", DType::bf16, {}, directory.path());  // other weights: other files, not stale ones
    CHECK(!same(other.run(request, OffloadSpec::parse("leaf"))));
  }
}

TEST_CASE("a request that does not fit is refused before work begins") {
  const testing::Golden golden("dev");
  const auto model = flux::Model::open(golden.directory());
  const auto refused = [&](auto change, const char* word) {
    auto request = testing::request_of(golden);
    change(request);
    std::vector<std::string> warnings;
    CHECK_THROWS_WITH_AS(flux::check(request, model, warnings), doctest::Contains(word), ConfigError);
  };
  refused([](auto& request) { request.height = 0; }, "height");
  refused([](auto& request) { request.width = 40000; }, "width");
  refused([](auto& request) { request.steps = 0; }, "steps");
  refused([](auto& request) { request.images_per_prompt = 0; }, "num-images");
  refused([](auto& request) { request.max_sequence_length = 513; }, "max-sequence-length");
  refused([](auto& request) { request.width = 16400; }, "16384");
  for (const double scale : {std::nan(""), 1e39, -1e39}) {
    refused([&](auto& request) { request.guidance = scale; }, "guidance");
    refused([&](auto& request) { request.true_cfg = scale; }, "true-cfg");
  }
  refused([](auto& request) { request.prompts.clear(); }, "prompt");
  refused([](auto& request) { request.prompts_2 = {"a", "b"}; }, "prompt-2");
  refused([](auto& request) { request.latents = {1, 3, 64, std::vector<float>(192)}; }, "tokens");
  refused([](auto& request) { request.embeds = {1, 4, 32, std::vector<float>(128)}; }, "pooled_prompt_embeds");
  auto request = testing::request_of(golden);
  request.height = 50;
  request.negative_prompts = {"blurry"};
  std::vector<std::string> warnings;
  flux::check(request, model, warnings);
  CHECK(request.height == 48);
  CHECK(warnings.size() == 2);
  flux::check(request, model, warnings);
  CHECK(warnings.size() == 2);
}

TEST_CASE("a signal during a step ends the loop after it") {
  const testing::Golden golden("dev");
  Session session(golden, "", DType::f32);
  auto request = testing::request_of(golden);
  request.steps = 4;
  CHECK(session.steps_until_signal(request) == std::vector<std::size_t>{0, 1});
}

TEST_CASE("NaN in a weight is an error that names the phase, not a black picture") {
  const testing::Golden golden("dev");
  const auto request = testing::request_of(golden);
  const auto broken = [&](auto parameter) {
    auto model = flux::Model::open(golden.directory());
    const examples::Weights weights(model, {});
    const auto machine = examples::host_machine<flux::Pipeline>(1);
    const auto engine = machine->engine(model, weights, {});
    const_cast<float&>(parameter(model).values()[0]) = std::nanf("");
    return testing::message_of<ValueError>([&] { (void)engine->run(request, nobody); });
  };
  const auto denoise = broken([](flux::Model& model) -> Vector& { return model.transformer.image_out.bias; });
  CHECK(testing::first_missing(
            denoise, {"denoise: the latents after step " + std::to_string(request.steps), "NaN", "--compute"}) == "");
  const auto decode = broken([](flux::Model& model) -> Vector& { return model.vae.conv_out.bias; });
  CHECK(testing::first_missing(decode, {"decode: the pictures", "NaN"}) == "");
}

TEST_CASE("the difference of two results is that of their pictures") {
  const auto with = [](float latent, std::uint8_t level) {
    flux::Result result;
    result.latents = {1, 1, 1, {latent}};
    result.pictures = {{1, 1, {0, level, 0}}};
    return result;
  };
  CHECK(largest_difference(with(1, 7), with(2, 7)) == 0);
  CHECK(largest_difference(with(1, 7), with(1, 9)) == 2);
}

TEST_CASE("prompts of all kinds draw something") {
  const testing::Golden golden("dev");
  Session session(golden, "nf4", DType::bf16);
  auto request = testing::request_of(golden);
  request.steps = 1;
  std::string words;
  for (int i = 0; i < 10000; ++i) words += "word ";
  for (const std::string& prompt : {std::string(), std::string("\xf0\x9f\x90\xb1\xe2\x80\x8d\xf0\x9f\x91\xa4"), words,
                                    std::string("\xff broken \xc3")}) {
    request.prompts = {prompt};
    const auto result = session.run(request);
    CHECK(result.pictures.size() == 1);
    CHECK((prompt.size() > 1000) == !result.warnings.empty());
  }
}

TEST_CASE("latents pack and unpack by diffusers' rule") {
  const testing::Golden golden("wide");
  const Shape shape = golden.shape("noise");
  const auto noise = golden.floats("noise");
  const std::size_t rows = shape[2] / 2, columns = shape[3] / 2;
  std::vector<float> packed(noise.size()), picture(noise.size());
  const Matrix<float> tokens(packed.data(), shape[0] * rows * columns, shape[1] * 4);
  flux::pack_latents<float>(noise, shape[0], shape[1], rows, columns, tokens);
  CHECK(packed == golden.floats("noise_packed"));
  flux::unpack_latents<float>(tokens, rows, columns, 0.5f, 1.0f,
                              Image<float>{picture.data(), shape[0], shape[2], shape[3], shape[1]});
  CHECK(picture[shape[1] * 3 + 2] == noise[2 * shape[2] * shape[3] + 3] / 0.5f + 1.0f);  // pixel 3, channel 2
}
