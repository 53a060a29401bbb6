#include "flux/transformer.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"

using namespace ebb;
using examples::ConfigFile;

namespace {

/// One forward on the golden's inputs. `prefix` names the run ("", "bf16.", "nf4.").
template <Element T>
std::vector<T> velocity(const testing::Golden& golden, LoadOptions options = {}) {
  const auto directory = golden.directory() / "transformer";
  options.compute = dtype_of<T>;
  const testing::Loaded<flux::Transformer> model(
      flux::Transformer::make(flux::TransformerConfig::read(ConfigFile::open(directory / "config.json"))), directory,
      options);
  testing::Host<T> host;
  const bool half = dtype_of<T> != DType::f32;
  const auto convert = [](const std::vector<float>& values) {
    std::vector<T> result(values.size());
    std::transform(values.begin(), values.end(), result.begin(), [](float value) { return static_cast<T>(value); });
    return result;
  };
  const auto latents = convert(golden.floats(half ? "bf16.noise_packed" : "noise_packed"));
  auto states = golden.floats("forward.encoder_hidden_states");
  auto pooled = golden.floats("forward.pooled_projections");
  const Shape text = golden.shape("forward.encoder_hidden_states");
  const Shape out = golden.shape("forward.sample");
  if (half) {
    const auto spread = [&](const std::vector<float>& rows, std::size_t count) {
      std::vector<float> result;
      for (std::size_t item = 0; item < text[0]; ++item) {
        const std::size_t size = rows.size() / count;
        const std::size_t from = item / (text[0] / count) * size;
        result.insert(result.end(), rows.begin() + static_cast<std::ptrdiff_t>(from),
                      rows.begin() + static_cast<std::ptrdiff_t>(from + size));
      }
      return result;
    };
    states = spread(golden.floats("bf16.t5.last_hidden_state"), golden.shape("bf16.t5.last_hidden_state")[0]);
    pooled = spread(golden.floats("bf16.clip.pooled"), golden.shape("bf16.clip.pooled")[0]);
  }
  const auto text_states = convert(states);
  const auto text_pooled = convert(pooled);
  const auto& call_facts = golden.call();
  const Shape noise = golden.shape("noise");
  const auto rotary = model->config.rotary(text[1], noise[2] / 2, noise[3] / 2);
  const auto sequence = flux::Sequence::make(host.ctx, rotary, out[0], out[1]);
  const std::vector<float> timesteps(out[0],
                                     golden.floats(half ? "bf16.forward.timestep" : "forward.timestep").front());
  const std::vector<float> guidances(out[0], call_facts.at("guidance_scale").get<float>());
  const auto modulation = host.ctx.matrix(out[0], model->modulation_width());
  model->modulate(host.ctx, timesteps, guidances,
                  Matrix<const T>(text_pooled.data(), text[0], text_pooled.size() / text[0]), modulation);
  std::vector<T> result(out.elements());
  call(host.ctx, *model, sequence, Matrix<const T>(latents.data(), out[0] * out[1], out[2]),
       Matrix<const T>(text_states.data(), text[0] * text[1], text[2]), modulation,
       Matrix<T>(result.data(), out[0] * out[1], out[2]));
  return result;
}

const char* const pipelines[] = {"dev", "schnell", "three_heads", "wide"};

}  // namespace

TEST_CASE("one forward equals diffusers'") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name);
    CHECK(testing::relative_error(velocity<float>(golden), golden.floats("forward.sample")) < 1e-5);
    CHECK(testing::relative_error(velocity<bfloat16>(golden), golden.floats("bf16.forward.sample")) < 2e-2);
  }
}

TEST_CASE("one forward in a 4-bit format equals diffusers on bitsandbytes' dequantized weights") {
  using Kind = FormatChoice::Kind;
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name);
    CHECK(testing::relative_error(velocity<float>(golden, testing::quantized(Kind::nf4)),
                                  golden.floats("nf4.forward.sample")) < 1e-5);
  }
  const testing::Golden golden("dev");
  CHECK(testing::relative_error(
            velocity<float>(golden, testing::quantized(Kind::nf4, {.nested = DoubleQuantization::on})),
            golden.floats("nf4_dq.forward.sample")) < 1e-5);
  CHECK(testing::relative_error(velocity<float>(golden, testing::quantized(Kind::nf4, {.block_size = 128})),
                                golden.floats("nf4_bs128.forward.sample")) < 1e-5);
  CHECK(testing::relative_error(velocity<float>(golden, testing::quantized(Kind::fp4)),
                                golden.floats("fp4.forward.sample")) < 1e-5);
}

TEST_CASE("a configuration that does not fit says which field") {
  const auto read = [](const nlohmann::json& change) {
    const auto path = std::filesystem::temp_directory_path() / "ebb-transformer-config.json";
    nlohmann::json config = nlohmann::json::parse(
        std::ifstream(std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines/dev/transformer/config.json"));
    config.merge_patch(change);
    std::ofstream(path) << config;
    const auto file = ConfigFile::open(path);
    std::filesystem::remove(path);
    return flux::TransformerConfig::read(file);
  };
  CHECK_NOTHROW(read(nlohmann::json::object()));
  CHECK_THROWS_WITH_AS(read({{"num_layers", -1}}), doctest::Contains("num_layers"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"num_layers", nullptr}}), doctest::Contains("num_layers"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"num_attention_heads", 0}}), doctest::Contains("num_attention_heads"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"axes_dims_rope", {2, 2, 2}}}), doctest::Contains("axes_dims_rope"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"patch_size", 2}}), doctest::Contains("patch_size"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"in_channels", "many"}}), doctest::Contains("in_channels"), ConfigError);
}
