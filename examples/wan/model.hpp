#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <string>

#include "common/autoencoder_kl_wan.hpp"
#include "common/config_file.hpp"
#include "common/model_index.hpp"
#include "common/t5.hpp"
#include "common/t5_tokenizer.hpp"
#include "wan/sampler.hpp"
#include "wan/transformer.hpp"

namespace ebb::wan {

/// Everything that a WanPipeline directory describes, weights excepted. The pipeline runs its components in the order
/// of `component_names`.
struct Model {
  static constexpr std::array<const char*, 3> component_names{"text_encoder", "transformer", "vae"};

  std::filesystem::path directory;
  examples::T5Tokenizer tokenizer;
  Sampler sampler;
  examples::T5EncoderModel text_encoder;
  Transformer transformer;
  examples::WanDecoder vae;

  /// Reads all configurations and the tokenizer. @throws FileError, ConfigError
  static Model open(const std::filesystem::path& directory);

  /// Calls `visit(name, component)` in the pipeline's order.
  template <class Visit>
  void for_each_component(Visit&& visit) {
    visit(std::string(component_names[0]), text_encoder);
    visit(std::string(component_names[1]), transformer);
    visit(std::string(component_names[2]), vae);
  }

  /// Pixels a side of one token: the VAE's scale, times the patch.
  std::size_t token_pixels() const { return TransformerConfig::patch * vae.config.spatial_scale(); }
};

inline Model Model::open(const std::filesystem::path& directory) {
  using examples::component_config;
  constexpr const char* supported = "Wan 2.1 text to video: Wan-AI/Wan2.1-T2V-14B-Diffusers or -1.3B-Diffusers";
  const auto index = ConfigFile::open(directory / "model_index.json");
  examples::check_pipeline(index, "WanPipeline", supported);
  const auto& entries = index.json();
  const auto second = entries.find("transformer_2");
  const bool two_transformers =
      second != entries.end() && second->is_array() && second->size() == 2 && !(*second)[1].is_null();
  if (two_transformers || index.has("boundary_ratio") || index.flag("expand_timesteps", false))
    throw ConfigError(concat(index.path().string(), ": this is a Wan 2.2 checkpoint; supported is ", supported));
  examples::check_class(index, "tokenizer", {"T5Tokenizer"});
  examples::check_class(index, "text_encoder", {"UMT5EncoderModel"});
  examples::check_class(index, "transformer", {"WanTransformer3DModel"});
  examples::check_class(index, "vae", {"AutoencoderKLWan"});
  const auto text = examples::T5Config::read(component_config(directory, "text_encoder"));
  const auto transformer = TransformerConfig::read(component_config(directory, "transformer"));
  const auto vae = examples::WanVaeConfig::read(component_config(directory, "vae"));
  const auto mismatch = [&](const char* what, std::size_t expected, std::size_t found) {
    if (expected != found)
      throw ConfigError(
          concat(directory.string(), ": ", what, ": the transformer expects ", expected, ", found ", found));
  };
  mismatch("width of text_encoder", transformer.text_width, text.width);
  mismatch("latent channels of vae", transformer.channels, vae.latent_channels);
  return {
      .directory = directory,
      .tokenizer = examples::T5Tokenizer::load(directory / "tokenizer"),
      .sampler = Sampler::load(
          directory / "scheduler",
          examples::check_class(index, "scheduler", {"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"})),
      .text_encoder = examples::T5EncoderModel::make(text),
      .transformer = Transformer::make(transformer),
      .vae = examples::WanDecoder::make(vae)};
}

}  // namespace ebb::wan
