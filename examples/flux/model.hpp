#pragma once

#include <array>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/autoencoder_kl.hpp"
#include "common/clip.hpp"
#include "common/clip_tokenizer.hpp"
#include "common/config_file.hpp"
#include "common/flow_match_euler.hpp"
#include "common/model_index.hpp"
#include "common/t5.hpp"
#include "common/t5_tokenizer.hpp"
#include "flux/transformer.hpp"

namespace ebb::flux {

/// Everything that a FluxPipeline directory describes, weights excepted. The pipeline runs its components in the
/// order of `component_names`.
struct Model {
  static constexpr std::array<const char*, 4> component_names{"text_encoder", "text_encoder_2", "transformer", "vae"};

  std::filesystem::path directory;
  examples::ClipTokenizer clip_tokenizer;
  examples::T5Tokenizer t5_tokenizer;
  examples::FlowMatchEuler scheduler;
  examples::ClipTextModel text_encoder;
  examples::T5EncoderModel text_encoder_2;
  Transformer transformer;
  examples::AutoencoderDecoder vae;

  /// Reads all configurations and tokenizers. @throws FileError, ConfigError
  static Model open(const std::filesystem::path& directory);

  /// Calls `visit(name, component)` in the pipeline's order.
  template <class Visit>
  void for_each_component(Visit&& visit) {
    visit(std::string(component_names[0]), text_encoder);
    visit(std::string(component_names[1]), text_encoder_2);
    visit(std::string(component_names[2]), transformer);
    visit(std::string(component_names[3]), vae);
  }

  /// Pixels a side of one packed latent token: the VAE's scale, times 2 for the packing.
  std::size_t token_pixels() const { return 2 * vae.config.scale(); }
};

inline Model Model::open(const std::filesystem::path& directory) {
  using examples::component_config;
  const auto index = examples::ConfigFile::open(directory / "model_index.json");
  examples::check_pipeline(index, "FluxPipeline", "FLUX.1-dev or FLUX.1-schnell");
  constexpr std::array<std::pair<const char*, const char*>, 7> classes{
      {{"tokenizer", "CLIPTokenizer"},
       {"tokenizer_2", "T5Tokenizer"},
       {"scheduler", "FlowMatchEulerDiscreteScheduler"},
       {"text_encoder", "CLIPTextModel"},
       {"text_encoder_2", "T5EncoderModel"},
       {"transformer", "FluxTransformer2DModel"},
       {"vae", "AutoencoderKL"}}};
  for (const auto& [component, expected] : classes) examples::check_class(index, component, {expected});
  const auto clip = examples::ClipConfig::read(component_config(directory, "text_encoder"));
  const auto t5 = examples::T5Config::read(component_config(directory, "text_encoder_2"));
  const auto transformer = TransformerConfig::read(component_config(directory, "transformer"));
  const auto vae = examples::AutoencoderConfig::read(component_config(directory, "vae"));
  const auto mismatch = [&](const char* what, std::size_t expected, std::size_t found) {
    if (expected != found)
      throw ConfigError(
          concat(directory.string(), ": ", what, ": the transformer expects ", expected, ", found ", found));
  };
  mismatch("pooled width of text_encoder", transformer.pooled_width, clip.width);
  mismatch("width of text_encoder_2", transformer.text_width, t5.width);
  mismatch("four times the latent channels of vae", transformer.channels, 4 * vae.latent_channels);
  return {.directory = directory,
          .clip_tokenizer = examples::ClipTokenizer::load(directory / "tokenizer"),
          .t5_tokenizer = examples::T5Tokenizer::load(directory / "tokenizer_2"),
          .scheduler = examples::FlowMatchEuler::load(directory / "scheduler"),
          .text_encoder = examples::ClipTextModel::make(clip),
          .text_encoder_2 = examples::T5EncoderModel::make(t5),
          .transformer = Transformer::make(transformer),
          .vae = examples::AutoencoderDecoder::make(vae)};
}

}  // namespace ebb::flux
