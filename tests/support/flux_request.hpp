#pragma once

#include <string>
#include <vector>

#include "flux/request.hpp"
#include "support/golden.hpp"

namespace ebb::testing {

/// The call that diffusers got.
inline flux::Request request_of(const Golden& golden) {
  const auto& call = golden.call();
  const auto list = [&](const char* key) {
    const auto& value = call.at(key);
    if (value.is_null()) return std::vector<std::string>{};
    return value.is_string() ? std::vector<std::string>{value.get<std::string>()}
                             : value.get<std::vector<std::string>>();
  };
  flux::Request request;
  request.prompts = list("prompt");
  request.prompts_2 = list("prompt_2");
  request.negative_prompts = list("negative_prompt");
  request.true_cfg = call.at("true_cfg_scale");
  request.height = call.at("height");
  request.width = call.at("width");
  request.steps = call.at("num_inference_steps");
  request.guidance = call.at("guidance_scale");
  request.seed = call.at("seed");
  request.images_per_prompt = call.at("num_images_per_prompt");
  request.max_sequence_length = call.at("max_sequence_length");
  return request;
}

}  // namespace ebb::testing
