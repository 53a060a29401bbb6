#pragma once

#include <unistd.h>

#include <algorithm>
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
#include <system_error>
#include <utility>
#include <vector>

#include "common/interrupt.hpp"
#include "common/unused_skips.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/bitsandbytes_writer.hpp"
#include "ebb/io/checkpoint.hpp"
#include "ebb/io/checkpoint_writer.hpp"
#include "ebb/io/load.hpp"
#include "ebb/io/mapped_file.hpp"
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

/// `path` without symbolic links and without a slash at its end. @throws FileError
inline std::filesystem::path resolved(const std::filesystem::path& path) {
  std::error_code failure;
  auto result = std::filesystem::weakly_canonical(std::filesystem::absolute(path, failure), failure);
  if (failure) throw FileError(concat(path.string(), ": cannot be found: ", failure.message()));
  return result.has_filename() ? result : result.parent_path();
}

/// A directory that takes its name only when it is complete; otherwise it disappears. A kill, or a second Ctrl-C,
/// leaves `<name>.partial-<process id>`.
class PartialDirectory {
 public:
  /// @throws FileError when the target is there already and not empty, lies in `source`, or cannot be created
  PartialDirectory(const std::filesystem::path& target, const std::filesystem::path& source) {
    if (target.empty()) throw FileError("the directory to write has an empty name");
    target_ = resolved(target);
    const auto from = resolved(source);
    if (std::mismatch(from.begin(), from.end(), target_.begin(), target_.end()).first == from.end())
      throw FileError(
          concat(target.string(), ": lies in ", source.string(), ", which is copied; name another directory"));
    std::error_code failure;
    const auto status = std::filesystem::status(target_, failure);
    if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
      throw FileError(concat(target.string(), ": is there already and no directory; name another one"));
    if (!std::filesystem::exists(status) &&
        std::filesystem::is_symlink(std::filesystem::symlink_status(target_, failure)))
      throw FileError(concat(target.string(), ": is a link that leads nowhere; name another directory"));
    if (std::filesystem::exists(status) && !std::filesystem::is_empty(target_, failure))
      throw FileError(concat(target.string(), ": is there already and not empty; name another directory"));
    auto partial = target_;
    partial += ".partial-" + std::to_string(::getpid());
    std::filesystem::create_directories(target_.parent_path(), failure);
    if (!std::filesystem::create_directory(partial, failure))
      throw FileError(concat(partial.string(), ": cannot be created: ",
                             failure ? failure.message() : "is there already, left by a run that was killed"));
    partial_ = std::move(partial);
  }
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;
  ~PartialDirectory() {
    std::error_code ignored;
    if (!partial_.empty()) std::filesystem::remove_all(partial_, ignored);
  }
  const std::filesystem::path& path() const { return partial_; }
  /// @throws FileError
  void commit() {
    std::error_code failure;
    std::filesystem::rename(partial_, target_, failure);  // replaces an empty directory, and nothing else
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

/// A file, so that it can be interrupted. @throws FileError, Interrupted
inline void copy_in_pieces(const std::filesystem::path& from, const std::filesystem::path& to) {
  constexpr std::size_t piece_bytes = std::size_t{16} << 20;
  const MappedFile file = MappedFile::open(from);
  AtomicFile copy(to);
  for (auto rest = file.bytes(); !rest.empty();) {
    throw_if_interrupted();
    const auto piece = rest.first(std::min(rest.size(), piece_bytes));
    copy.write(piece);
    rest = rest.subspan(piece.size());
  }
  copy.commit();
}

/// Copies regular files and directories of `from`, except those of its own that `skip` names. @throws FileError,
/// Interrupted
inline void copy_files(const std::filesystem::path& from, const std::filesystem::path& to,
                       const std::function<bool(const std::filesystem::path&)>& skip) {
  std::error_code failure;
  const auto check = [&](const std::filesystem::path& path) {
    if (failure) throw FileError(concat(path.string(), ": cannot be copied: ", failure.message()));
  };
  std::filesystem::create_directories(to, failure);
  check(to);
  std::filesystem::directory_iterator entry(from, failure);
  for (; !failure && entry != std::filesystem::directory_iterator(); entry.increment(failure)) {
    const std::filesystem::path& path = entry->path();
    if (skip(path)) continue;
    throw_if_interrupted();
    const bool directory = entry->is_directory(failure);  // fails for a link into a circle, not for one into nowhere
    check(path);
    if (directory)
      copy_files(path, to / path.filename(), [](const auto&) { return false; });
    else
      copy_in_pieces(path, to / path.filename());
  }
  check(from);
}

}  // namespace detail

/// Writes one component of a pipeline in bitsandbytes' layout: the weights of its linears quantized in the type that
/// they are stored in, every other tensor byte for byte, config.json with `quantization_config`. The quantized weights
/// of the component are in memory at once. @throws FileError, ConfigError, ValueError, Interrupted
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
  detail::copy_files(source, target,
                     [](const auto& path) { return detail::is_weight_file(path) || path.filename() == "config.json"; });

  std::vector<AlignedBuffer> segments;
  std::vector<bitsandbytes::StoredTensor> parts;
  for (const std::string& name : checkpoint.names()) {
    const TensorView& view = checkpoint.at(name);
    const auto linear = linears.find(name);
    if (linear == linears.end()) {
      parts.push_back({{name, view.dtype, view.shape}, view.bytes, {}});
      continue;
    }
    throw_if_interrupted();
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
  for (const auto& part : parts) {
    throw_if_interrupted();
    writer.write(part.declaration.name, part.bytes());
  }
  throw_if_interrupted();
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
std::vector<std::string> quantize_components(Model& model, const std::filesystem::path& target,
                                             const QuantizeOptions& options,
                                             const std::function<void(const std::string&)>& progress) {
  const std::filesystem::path& source = model.directory;
  const std::vector<std::string> names(Model::component_names.begin(), Model::component_names.end());
  options.plan.check_components(names);
  if (options.plan.names("vae"))
    throw ConfigError("vae: has convolutions, which have no quantized format; name the other components");
  PartialDirectory partial(target, source);
  std::set<std::string> written;
  UnusedSkips unused(options.plan.skip());
  model.for_each_component([&]<Module Component>(const std::string& name, Component& component) {
    const FormatChoice& format = options.plan.format_of(name);
    if (name == "vae" || format.kind == FormatChoice::Kind::dense) return;
    if (format.kind == FormatChoice::Kind::fp8)
      throw ConfigError(concat(name, ": bitsandbytes stores no fp8 weights: expected nf4, fp4 or int8"));
    unused.visit(component);
    std::filesystem::create_directories(partial.path() / name);
    quantize_component(component, source / name, partial.path() / name, format, options.plan.skip(), options,
                       [&](const std::string& tensor) { progress(name + "/" + tensor); });
    written.insert(name);
  });
  std::vector<std::string> warnings = unused.warnings();
  copy_files(source, partial.path(), [&](const auto& path) {
    const std::string name = path.filename().string();
    // Beside model_index.json: the weights once more, as published for other programs, which no reader of this
    // directory opens.
    const bool other = is_weight_file(path) && !std::filesystem::is_directory(path);
    if (other)
      warnings.push_back(concat(name, ": is not copied: weights beside model_index.json are no part of the pipeline"));
    return other || written.count(name) != 0;
  });
  throw_if_interrupted();
  partial.commit();
  return warnings;
}

}  // namespace detail

/// Turns a FluxPipeline or WanPipeline directory into one whose components are quantized as the plan says. What is not
/// quantized is copied, but for weights beside model_index.json. The target appears complete or not at all, unless the
/// process is killed (PartialDirectory). Calls `progress(tensor)` before each linear. Returns what the user should
/// know, one sentence each.
/// @throws ConfigError for a plan that names the VAE, whose convolutions have no such formats, FileError, ValueError,
///   Interrupted
inline std::vector<std::string> quantize_pipeline(const std::filesystem::path& source,
                                                  const std::filesystem::path& target, const QuantizeOptions& options,
                                                  const std::function<void(const std::string&)>& progress) {
  const auto run = [&](auto model) { return detail::quantize_components(model, target, options, progress); };
  if (ConfigFile::open(source / "model_index.json").string("_class_name", "") == "WanPipeline")
    return run(wan::Model::open(source));
  return run(flux::Model::open(source));
}

}  // namespace ebb::examples
