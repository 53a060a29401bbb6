#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ebb/io/atomic_file.hpp"
#include "ebb/io/bitsandbytes_writer.hpp"
#include "ebb/io/checkpoint.hpp"
#include "ebb/io/checkpoint_writer.hpp"
#include "ebb/io/load.hpp"
#include "ebb/io/stored_quantization.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/tensor/quantize.hpp"
#include "flux/model.hpp"
#include "wan/model.hpp"

namespace ebb::examples {

/// What to write.
struct QuantizeOptions {
  QuantizationPlan plan;
  DType compute = DType::bf16;  // what readers should compute in: bnb_4bit_compute_dtype
  std::size_t max_shard_bytes = CheckpointWriter::default_max_shard_bytes;
};

namespace detail {

/// A directory that takes its name only when it is complete; otherwise it disappears.
class PartialDirectory {
 public:
  /// @throws FileError when the target is there already and not empty, or cannot be created
  explicit PartialDirectory(const std::filesystem::path& target)
      : target_(target), partial_(target.string() + ".partial-" + std::to_string(::getpid())) {
    std::error_code failure;
    if (std::filesystem::exists(target_) && !std::filesystem::is_empty(target_, failure))
      throw FileError(concat(target_.string(), ": is there already and not empty; name another directory"));
    std::filesystem::create_directories(partial_, failure);
    if (failure) throw FileError(concat(partial_.string(), ": cannot be created: ", failure.message()));
  }
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;
  ~PartialDirectory() {
    std::error_code ignored;
    if (!partial_.empty()) std::filesystem::remove_all(partial_, ignored);
  }
  const std::filesystem::path& path() const { return partial_; }
  void commit() {
    std::error_code failure;
    std::filesystem::remove(target_, failure);  // an empty directory, or nothing
    std::filesystem::rename(partial_, target_, failure);
    if (failure) throw FileError(concat(target_.string(), ": cannot be put in place: ", failure.message()));
    partial_.clear();
  }

 private:
  std::filesystem::path target_, partial_;
};

inline bool is_weight_file(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
}

/// Copies regular files and directories of `from`, except those that `skip` names. @throws FileError
inline void copy_files(const std::filesystem::path& from, const std::filesystem::path& to,
                       const std::function<bool(const std::filesystem::path&)>& skip) {
  std::error_code failure;
  std::filesystem::create_directories(to, failure);
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    if (skip(entry.path())) continue;
    std::filesystem::copy(entry.path(), to / entry.path().filename(), std::filesystem::copy_options::recursive, failure);
    if (failure) throw FileError(concat(entry.path().string(), ": cannot be copied to ", to.string(), ": ", failure.message()));
  }
}

}  // namespace detail

/// Writes one component of a pipeline in bitsandbytes' layout: the weights of its linears quantized in the type that
/// they are stored in, every other tensor byte for byte, config.json with `quantization_config`. The quantized weights
/// of the component are in memory at once. @throws FileError, ConfigError, ValueError
template <Module Model>
void quantize_component(Model& model, const std::filesystem::path& source, const std::filesystem::path& target,
                        const FormatChoice& format, const std::vector<std::string>& skip,
                        const QuantizeOptions& options, const std::function<void(const std::string&)>& progress) {
  if (StoredQuantization::from_file(source / "config.json"))
    throw ConfigError(concat(source.string(), ": is quantized already"));
  const Checkpoint checkpoint = Checkpoint::open(source);
  const auto conventions = FileConventions::of<Model>();
  std::map<std::string, Shape> linears;  // by name in the file
  for_each_parameter(model, [&]<class P, class Owner>(const std::string& name, P& parameter, Owner&) {
    if constexpr (std::is_same_v<P, AnyTensor>) {
      const std::string module = name.substr(0, name.rfind('.'));
      if (!is_skipped(module, skip) && !is_skipped(module, conventions.kept))
        linears.emplace(conventions.name_in(checkpoint, name), parameter.shape());
    }
  });
  detail::copy_files(source, target, [](const auto& path) {
    return detail::is_weight_file(path) || path.filename() == "config.json";
  });

  std::vector<AlignedBuffer> segments;
  std::vector<bitsandbytes::StoredTensor> parts;
  for (const std::string& name : checkpoint.names()) {
    const TensorView& view = checkpoint.at(name);
    const auto linear = linears.find(name);
    if (linear == linears.end()) {
      parts.push_back({{name, view.dtype, view.shape}, view.bytes, {}});
      continue;
    }
    progress(name);
    checkpoint.expect_shape(name, linear->second);
    AnyTensor tensor;
    emplace(tensor, linear->second, format);
    segments.emplace_back(tensor.bytes());
    const auto quantize_as = [&]<Element T>(T) {
      std::vector<T> values(view.shape.elements());
      copy_elements(view, std::span<T>(values));
      quantize(std::span<const T>(values), tensor, segments.back().bytes(), name);
    };
    switch (view.dtype) {
      case DType::f32:
        quantize_as(0.0f);
        break;
      case DType::bf16:
        quantize_as(bfloat16(0.0f));
        break;
      case DType::f16:
        quantize_as(float16(0.0f));
        break;
      default:
        throw FileError(concat(checkpoint.file_of(name).string(), ": tensor '", name,
                               "': expected F32, F16 or BF16, found ", name_of(view.dtype)));
    }
    tensor.bind(segments.back().data());
    for (auto& part : bitsandbytes::stored_tensors(name, tensor, view.dtype)) parts.push_back(std::move(part));
    linears.erase(linear);
  }
  if (!linears.empty()) (void)checkpoint.at(linears.begin()->first);  // throws: names what is missing

  std::vector<TensorDeclaration> declared;
  for (const auto& part : parts) declared.push_back(part.declaration);
  const std::string stem = std::filesystem::exists(source / "model.safetensors") ||
                                   std::filesystem::exists(source / "model.safetensors.index.json")
                               ? "model"
                               : "diffusion_pytorch_model";
  CheckpointWriter writer(target, stem, declared, options.max_shard_bytes);
  for (const auto& part : parts) writer.write(part.declaration.name, part.bytes());
  writer.commit();

  const StoredQuantization stored{.kind = format.kind,
                                  .nested = format.block.nested,
                                  .compute = options.compute,
                                  .outlier_threshold = format.int8.outlier_threshold,
                                  .skip = skip};
  auto config = nlohmann::ordered_json::parse(std::ifstream(source / "config.json"));
  config["quantization_config"] = nlohmann::ordered_json::parse(stored.to_json().text());
  ebb::AtomicFile::write_text(target / "config.json", config.dump(2) + "\n");
}

namespace detail {

/// `quantize_pipeline` for one kind of pipeline.
template <class Model>
void quantize_components(Model& model, const std::filesystem::path& target, const QuantizeOptions& options,
                         const std::function<void(const std::string&)>& progress) {
  const std::filesystem::path& source = model.directory;
  const std::vector<std::string> names(Model::component_names.begin(), Model::component_names.end());
  options.plan.check_components(names);
  if (options.plan.names("vae"))
    throw ConfigError("vae: has convolutions, which have no quantized format; name the other components");
  PartialDirectory partial(target);
  std::set<std::string> written;
  model.for_each_component([&]<Module Component>(const std::string& name, Component& component) {
    const FormatChoice& format = options.plan.format_of(name);
    if (name == "vae" || format.kind == FormatChoice::Kind::dense) return;
    if (format.kind == FormatChoice::Kind::fp8)
      throw ConfigError(concat(name, ": bitsandbytes stores no fp8 weights: expected nf4, fp4 or int8"));
    std::filesystem::create_directories(partial.path() / name);
    quantize_component(component, source / name, partial.path() / name, format, options.plan.skip(), options,
                       [&](const std::string& tensor) { progress(name + "/" + tensor); });
    written.insert(name);
  });
  copy_files(source, partial.path(), [&](const auto& path) { return written.count(path.filename().string()) != 0; });
  partial.commit();
}

}  // namespace detail

/// Turns a FluxPipeline or WanPipeline directory into one whose components are quantized as the plan says. What is not
/// quantized is copied. The target appears complete or not at all.
/// @throws ConfigError for a plan that names the VAE, whose convolutions have no such formats
inline void quantize_pipeline(const std::filesystem::path& source, const std::filesystem::path& target,
                              const QuantizeOptions& options, const std::function<void(const std::string&)>& progress) {
  const auto run = [&](auto model) { detail::quantize_components(model, target, options, progress); };
  if (ConfigFile::open(source / "model_index.json").string("_class_name", "") == "WanPipeline")
    run(wan::Model::open(source));
  else
    run(flux::Model::open(source));
}

}  // namespace ebb::examples
