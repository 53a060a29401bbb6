#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/io/bitsandbytes.hpp"
#include "ebb/io/checkpoint.hpp"
#include "ebb/io/footprint.hpp"
#include "ebb/io/quantization_plan.hpp"
#include "ebb/module/outline.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantize.hpp"

namespace ebb {

/// How a component's parameters become what is kept in memory.
struct LoadOptions {
  FormatChoice format = {};            // of the weights of linears; dense leaves them as they are
  std::vector<std::string> skip = {};  // modules that stay dense, see is_skipped
  /// Type of the activations. Plain weights are rounded to it, also before they are quantized; for f32, those of 16
  /// bits stay as they are.
  DType compute = DType::f32;
  int threads = 1;
};

/// Liberties that files take with a model's tensors, read from its static members where it has them:
/// `keep_in_fp32` (parts of paths that are neither quantized nor rounded), `unused_prefixes` (tensors in the file that
/// the model does not need), `optional_prefix` (which some files leave out), `aliases` (name, other name).
struct FileConventions {
  std::vector<std::string> kept;
  std::vector<std::string> unused_prefixes;
  std::string optional_prefix;
  std::vector<std::pair<std::string, std::string>> aliases;

  template <class Model>
  static FileConventions of() {
    FileConventions conventions;
    if constexpr (requires { Model::keep_in_fp32; })
      conventions.kept.assign(Model::keep_in_fp32.begin(), Model::keep_in_fp32.end());
    if constexpr (requires { Model::unused_prefixes; })
      conventions.unused_prefixes.assign(Model::unused_prefixes.begin(), Model::unused_prefixes.end());
    if constexpr (requires { Model::optional_prefix; }) conventions.optional_prefix = Model::optional_prefix;
    if constexpr (requires { Model::aliases; })
      conventions.aliases.assign(Model::aliases.begin(), Model::aliases.end());
    return conventions;
  }

  /// What the model's tensor `name` is called in `checkpoint`.
  std::string name_in(const Checkpoint& checkpoint, const std::string& name) const {
    if (checkpoint.contains(name)) return name;
    if (!optional_prefix.empty() && name.starts_with(optional_prefix))
      if (std::string rest = name.substr(optional_prefix.size()); checkpoint.contains(rest)) return rest;
    for (const auto& [expected, other] : aliases)
      if (expected == name && checkpoint.contains(other)) return other;
    return name;
  }
};

/// Fills a component's home arena from a checkpoint, tensor by tensor: mapped file -> (rounding, quantization) ->
/// final segment, with no copy of the component in between.
///
/// Construction settles the format of every parameter and checks names, shapes and types of all tensors before one
/// byte of weights is read; `fill` does the work. Keeps references to model and checkpoint: both outlive the loader
/// and stay where they are. So does the loader itself, which its jobs point to: neither copied nor moved.
class Loader {
 public:
  /// @throws FileError for missing, surplus or mis-shaped tensors (names file, tensor, expected, found), ConfigError
  ///         for impossible options of a format or a dtype that is no compute type, ShapeError when a size overflows
  template <Module Model>
  Loader(Model& model, std::string component, const Checkpoint& checkpoint, const LoadOptions& options)
      : checkpoint_(checkpoint), options_(options), conventions_(FileConventions::of<Model>()) {
    std::vector<std::string> used;
    for_each_parameter(model, [&]<class P, class Owner>(const std::string& name, P& parameter, Owner&) {
      const std::string stored = conventions_.name_in(checkpoint_, name);
      used.push_back(stored);
      jobs_.push_back(settle<Owner>(name, stored, parameter));
    });
    check_surplus(std::move(used));
    outline_ = outline_of(model, std::move(component));
    std::size_t job = 0;
    attach(outline_, job);
  }
  template <Module Model>
  Loader(Model& model, std::string component, const Checkpoint&& temporary, const LoadOptions& options) = delete;
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Where everything lies; `fill` needs an arena of `bytes()`.
  const Outline& outline() const { return outline_; }
  std::size_t bytes() const { return outline_.end; }
  const Footprint& footprint() const { return footprint_; }
  /// What the user should know, one sentence each: a stored format that wins over the one asked for.
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// One line a parameter: what an arena of this layout holds. Equal layouts have equal text.
  std::string layout_text() const {
    std::string text;
    for (const Job& job : jobs_) text += concat(job.name, ' ', job.format, ' ', job.bytes, '\n');
    return text;
  }

  /// Writes all segments, on `options.threads` threads. `arena` is `bytes()` long and 256-byte aligned.
  /// @throws MemoryError when the arena is too small, ValueError for NaN or infinity in a weight that is quantized,
  ///         FileError for damaged quantization state; the first one where several threads fail
  void fill(std::span<std::byte> arena) const {
    if (arena.size() < bytes())
      throw MemoryError(concat("component ", outline_.name, " needs ", bytes(), " bytes, found ", arena.size()));
    std::atomic<std::size_t> next{0};
    std::mutex guard;
    std::exception_ptr failure;
    const auto work = [&] {
      try {
        for (std::size_t index = next++; index < jobs_.size(); index = next++)
          jobs_[index].fill(arena.subspan(jobs_[index].offset, jobs_[index].bytes));
      } catch (...) {
        const std::lock_guard lock(guard);
        if (!failure) failure = std::current_exception();
        next = jobs_.size();
      }
    };
    {
      std::vector<std::jthread> helpers;
      for (int thread = 1; thread < options_.threads; ++thread) helpers.emplace_back(work);
      work();
    }
    if (failure) std::rethrow_exception(failure);
  }

 private:
  struct Job {
    std::string name;
    std::string format;
    std::size_t offset = 0;
    std::size_t bytes = 0;
    std::function<void(std::span<std::byte>)> fill;
  };

  /// Chooses the parameter's format and says how to fill it.
  template <class Owner, class P>
  Job settle(const std::string& name, const std::string& stored, P& parameter) {
    const Shape shape = parameter.shape();
    Job job{.name = name, .format = {}, .fill = {}};
    if constexpr (std::is_same_v<P, AnyTensor>) {
      const std::string_view path = std::string_view(name).substr(0, name.rfind('.'));
      if (auto found = bitsandbytes::stored_choice(checkpoint_, stored, shape)) {
        if (found->kind == FormatChoice::Kind::int8) found->int8 = options_.format.int8;
        if (options_.format.kind != FormatChoice::Kind::dense && options_.format.kind != found->kind)
          warn(concat(checkpoint_.location().string(), ": weights are stored as ", found->name(),
                      ", which wins over the ", options_.format.name(), " asked for"));
        emplace(parameter, shape, *found);
        const AnyTensor target = parameter;
        job.fill = [this, stored, target](std::span<std::byte> segment) {
          bitsandbytes::read_into(checkpoint_, stored, target, segment);
        };
      } else if (options_.format.kind != FormatChoice::Kind::dense && !is_skipped(path, options_.skip) &&
                 !is_skipped(path, conventions_.kept)) {
        expect(stored, shape);
        emplace(parameter, shape, options_.format);
        const AnyTensor target = parameter;
        const DType rounding = options_.compute;
        job.fill = [this, stored, target, rounding](std::span<std::byte> segment) {
          try {
            target.visit([&](const auto& tensor) { convert(stored, tensor, rounding, false, segment); });
          } catch (const ValueError& error) {
            throw ValueError(concat(checkpoint_.file_of(stored).string(), ": ", error.what()));
          }
        };
      }
    }
    if (!job.fill) settle_dense<Owner>(stored, shape, parameter, job);
    job.format = format_text(parameter);
    job.bytes = parameter.bytes();
    if constexpr (requires { parameter.format_name(); })
      footprint_.add(parameter.format_name(), parameter.layout());
    else
      footprint_.add("f32", parameter.layout());
    return job;
  }

  /// A leaf's `static constexpr bool stored_channels_first`, false where it has none.
  template <class Owner>
  static consteval bool stored_channels_first() {
    if constexpr (requires { Owner::stored_channels_first; })
      return Owner::stored_channels_first;
    else
      return false;
  }

  template <class Owner, class P>
  void settle_dense(const std::string& stored, const Shape& shape, P& parameter, Job& job) {
    constexpr bool permuted = stored_channels_first<Owner>() && !std::is_same_v<P, Vector>;
    std::vector<std::size_t> in_file(shape.begin(), shape.end());
    if constexpr (permuted) std::rotate(in_file.begin() + 1, in_file.end() - 1, in_file.end());
    const TensorView& source = expect(stored, Shape(std::span<const std::size_t>(in_file)));
    DType type = source.dtype;
    if constexpr (!std::is_same_v<P, Vector>) {
      const bool exact = size_of(type) <= 2 && options_.compute == DType::f32;
      if (!exact && !has_path_part(stored, conventions_.kept)) type = options_.compute;
      emplace_dense(parameter, shape, type);
    }
    const P target = parameter;
    // Vectors are float32 in memory, with the values that the compute type can hold.
    if (std::is_same_v<P, Vector>) type = has_path_part(stored, conventions_.kept) ? DType::f32 : options_.compute;
    const DType rounding = type;
    job.fill = [this, stored, target, rounding](std::span<std::byte> segment) {
      if constexpr (std::is_same_v<P, Vector>)
        convert(stored, target, rounding, false, segment);
      else
        target.visit([&](const auto& tensor) { convert(stored, tensor, rounding, permuted, segment); });
    };
  }

  const TensorView& expect(const std::string& stored, const Shape& shape) const {
    const TensorView& source = checkpoint_.at(stored);
    if (source.shape != shape)
      throw FileError(concat(checkpoint_.file_of(stored).string(), ": tensor '", stored, "': expected shape ",
                             shape.text(), ", found ", source.shape.text()));
    if (source.dtype != DType::f32 && source.dtype != DType::f16 && source.dtype != DType::bf16)
      throw FileError(concat(checkpoint_.file_of(stored).string(), ": tensor '", stored,
                             "': expected F32, F16 or BF16, found ", name_of(source.dtype)));
    return source;
  }

  void warn(std::string sentence) {
    if (std::find(warnings_.begin(), warnings_.end(), sentence) == warnings_.end())
      warnings_.push_back(std::move(sentence));
  }

  template <class P>
  static std::string format_text(const P& parameter) {
    std::string text = parameter.shape().text();
    if constexpr (requires { parameter.format_name(); }) {
      text += parameter.format_name();
      parameter.visit([&]<class Format>(const QuantizedTensor<Format>& tensor) {
        if constexpr (BlockFormat<Format>)
          text += concat("/", tensor.options().block_size, tensor.nested() ? "/nested" : "");
      });
    }
    return text;
  }

  void check_surplus(std::vector<std::string> used) const {
    std::sort(used.begin(), used.end());
    for (const std::string& name : checkpoint_.names()) {
      if (std::binary_search(used.begin(), used.end(), name)) continue;
      if (const auto owner = bitsandbytes::weight_of(name);
          owner && std::binary_search(used.begin(), used.end(), *owner))
        continue;
      const bool known = std::any_of(conventions_.unused_prefixes.begin(), conventions_.unused_prefixes.end(),
                                     [&](const std::string& prefix) { return name.starts_with(prefix); }) ||
                         std::any_of(conventions_.aliases.begin(), conventions_.aliases.end(),
                                     [&](const auto& alias) { return alias.second == name || alias.first == name; });
      if (!known)
        throw FileError(concat(checkpoint_.file_of(name).string(), ": tensor '", name,
                               "' is not part of the model: expected ", jobs_.size(),
                               " known tensors, found this one besides; a configuration of another size, or another "
                               "model's weights?"));
    }
  }

  void attach(const Outline& node, std::size_t& job) {
    for_each_reference(node, [&](const ParameterReference& reference) { jobs_[job++].offset = reference.offset; });
  }

  /// File values, rounded to `rounding`, into the segment of `target`.
  template <QuantFormat Format>
  void convert(const std::string& stored, const QuantizedTensor<Format>& target, DType rounding, bool permuted,
               std::span<std::byte> segment) const {
    switch (rounding) {
      case DType::f16:
        return convert_as<float16>(stored, target, permuted, segment);
      case DType::bf16:
        return convert_as<bfloat16>(stored, target, permuted, segment);
      default:
        return convert_as<float>(stored, target, permuted, segment);
    }
  }

  template <Element Rounded, QuantFormat Format>
  void convert_as(const std::string& stored, const QuantizedTensor<Format>& target, bool permuted,
                  std::span<std::byte> segment) const {
    const TensorView& source = checkpoint_.at(stored);
    Quantizer<Format> quantizer(target, segment, stored);
    constexpr std::size_t about = std::size_t{1} << 16;  // elements that are converted at a time
    const std::size_t group = std::max<std::size_t>(target.group(), 1);
    const std::size_t groups = std::max<std::size_t>(about / group, 1);
    std::vector<Rounded> values(std::min(groups * group, target.elements()));
    for (std::size_t first = 0; first < target.groups(); first += groups) {
      const std::size_t begin = first * group;
      const std::size_t count = std::min(groups * group, target.elements() - begin);
      switch (source.dtype) {
        case DType::f16:
          read<float16>(source, target.shape(), permuted, begin, std::span(values).first(count));
          break;
        case DType::bf16:
          read<bfloat16>(source, target.shape(), permuted, begin, std::span(values).first(count));
          break;
        default:
          read<float>(source, target.shape(), permuted, begin, std::span(values).first(count));
      }
      quantizer.encode(first, std::span<const Rounded>(values).first(count));
    }
    quantizer.finish();
  }

  /// Elements [begin, begin + out.size()) in memory order. Offsets in the file need not be aligned.
  template <Element Stored, Element Rounded>
  static void read(const TensorView& source, const Shape& shape, bool permuted, std::size_t begin,
                   std::span<Rounded> out) {
    const std::byte* bytes = source.bytes.data();
    const std::size_t inputs = permuted ? shape[shape.rank() - 1] : 1;
    const std::size_t places = permuted ? shape.elements() / (shape[0] * inputs) : 1;
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::size_t at = begin + i;
      if (permuted) {  // memory [output, place, input] -> file [output, input, place]
        const std::size_t input = at % inputs;
        const std::size_t place = at / inputs % places;
        at = (at / (inputs * places) * inputs + input) * places + place;
      }
      Stored value;
      std::memcpy(&value, bytes + at * sizeof(Stored), sizeof(Stored));
      if constexpr (std::is_same_v<Stored, Rounded>)
        out[i] = value;
      else
        out[i] = static_cast<Rounded>(static_cast<float>(value));
    }
  }

  const Checkpoint& checkpoint_;
  LoadOptions options_;
  FileConventions conventions_;
  std::vector<Job> jobs_;
  Outline outline_;
  Footprint footprint_;
  std::vector<std::string> warnings_;
};

/// Points every parameter of a component at its place: those that stay at home into `home`, the others where
/// `place(home_offset)` says.
template <class Place>
void bind_parameters(const Outline& outline, const std::byte* home, Place&& place) {
  for_each_reference(outline, [&](const ParameterReference& parameter) {
    parameter.bind(parameter.stays_home ? home + parameter.offset : place(parameter.offset));
  });
}

}  // namespace ebb
