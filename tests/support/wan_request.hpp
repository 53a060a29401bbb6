#pragma once

#include <string>
#include <vector>

#include "support/golden.hpp"
#include "wan/request.hpp"

namespace ebb::testing {

/// The call that diffusers got. Nothing is decoded without a sink.
inline wan::Request wan_request_of(const Golden& golden) {
  const auto& call = golden.call();
  const auto list = [&](const char* key) {
    const auto& value = call.at(key);
    if (value.is_null()) return std::vector<std::string>{};
    return value.is_string() ? std::vector<std::string>{value.get<std::string>()}
                             : value.get<std::vector<std::string>>();
  };
  wan::Request request;
  request.prompts = list("prompt");
  request.negative_prompts = list("negative_prompt");
  request.guidance = call.at("guidance_scale");
  request.height = call.at("height");
  request.width = call.at("width");
  request.frames = call.at("num_frames");
  request.steps = call.at("num_inference_steps");
  request.seed = call.at("seed");
  request.max_sequence_length = call.at("max_sequence_length");
  return request;
}

}  // namespace ebb::testing
