#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>

#include "ebb/host.hpp"
#include "ebb/io/load.hpp"

namespace ebb::testing {

/// A component of a pipeline directory with all its weights in one arena, computed with where they lie.
template <Module Model>
class Loaded {
 public:
  Loaded(Model model, const std::filesystem::path& directory, const LoadOptions& options = {})
      : model_(std::move(model)), checkpoint_(Checkpoint::open(directory)) {
    const Loader loader(model_, directory.filename().string(), checkpoint_, options);
    arena_ = AlignedBuffer(loader.bytes());
    loader.fill(arena_.bytes());
    outline_ = loader.outline();
    footprint_ = loader.footprint();
    bind_parameters(outline_, arena_.data(), [this](std::size_t offset) { return arena_.data() + offset; });
  }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;

  const Model& operator*() const { return model_; }
  const Model* operator->() const { return &model_; }
  const Footprint& footprint() const { return footprint_; }

 private:
  Model model_;
  Checkpoint checkpoint_;
  AlignedBuffer arena_;
  Outline outline_;
  Footprint footprint_;
};

/// A context of its own, one thread.
template <Element T>
struct Host {
  Workspace workspace;
  host::Context<T> ctx{workspace, 1};
};

/// nf4, block 64; what the goldens named "nf4" were made with.
inline LoadOptions quantized(FormatChoice::Kind kind, BlockOptions block = {}) {
  LoadOptions options;
  options.format.kind = kind;
  options.format.block = block;
  return options;
}

}  // namespace ebb::testing
