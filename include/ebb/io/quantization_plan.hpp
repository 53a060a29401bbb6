#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/tensor/format_choice.hpp"

namespace ebb {

/// True when one of `names` keeps the linear at `module_path` out of quantization, by diffusers' rule
/// (`_replace_with_bnb_linear`): a name is the last part of the path, the whole path, or, followed by a dot, occurs
/// anywhere in it. An empty name is none.
inline bool is_skipped(std::string_view module_path, std::span<const std::string> names) {
  const std::size_t dot = module_path.rfind('.');
  const std::string_view last = dot == std::string_view::npos ? module_path : module_path.substr(dot + 1);
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return !name.empty() &&
           (name == last || name == module_path || module_path.find(name + ".") != std::string_view::npos);
  });
}

/// True when a part of the dotted path equals one of `names`: diffusers' rule for modules kept in float32.
template <class Names>
bool has_path_part(std::string_view path, const Names& names) {
  while (true) {
    const std::size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return part == name; })) return true;
    if (dot == std::string_view::npos) return false;
    path.remove_prefix(dot + 1);
  }
}

/// What PipelineQuantizationConfig of diffusers expresses: a format for each component of a pipeline, its options,
/// and modules that stay as they are.
class QuantizationPlan {
 public:
  /// Nothing is quantized.
  QuantizationPlan() = default;

  /// Parses "nf4" (every component) or "transformer=nf4,text_encoder_2=int8" (those named, the others stay dense).
  /// `options` gives block size, double quantization and outlier threshold; `skip` names modules in any component.
  /// @throws ConfigError for unknown formats, repeated components or a mix of both forms
  static QuantizationPlan parse(std::string_view spec, const FormatChoice& options, std::vector<std::string> skip) {
    QuantizationPlan plan;
    plan.skip_ = std::move(skip);
    const auto choose = [&](std::string_view name) {
      FormatChoice choice = options;
      choice.kind = FormatChoice::parse_kind(name);
      return choice;
    };
    if (spec.find('=') == std::string_view::npos) {
      plan.otherwise_ = choose(spec);
      return plan;
    }
    while (!spec.empty()) {
      const std::string_view entry = spec.substr(0, spec.find(','));
      spec.remove_prefix(std::min(spec.size(), entry.size() + 1));
      const std::size_t equals = entry.find('=');
      if (equals == std::string_view::npos || equals == 0 || equals + 1 == entry.size())
        throw ConfigError(concat("quantization: expected COMPONENT=FORMAT, found '", entry, "'"));
      const auto [at, fresh] = plan.formats_.emplace(entry.substr(0, equals), choose(entry.substr(equals + 1)));
      if (!fresh) throw ConfigError(concat("quantization: component '", at->first, "' is named twice"));
    }
    return plan;
  }

  /// The format of a component's linears.
  const FormatChoice& format_of(const std::string& component) const {
    const auto at = formats_.find(component);
    return at == formats_.end() ? otherwise_ : at->second;
  }
  /// True when the plan names this component, rather than all.
  bool names(const std::string& component) const { return formats_.count(component) != 0; }
  const std::vector<std::string>& skip() const { return skip_; }

  /// @throws ConfigError when the plan names a component that is not in `existing`; lists those
  void check_components(std::span<const std::string> existing) const {
    for (const auto& [component, format] : formats_)
      if (std::find(existing.begin(), existing.end(), component) == existing.end()) {
        std::string known;
        for (const std::string& each : existing) known += (known.empty() ? "" : ", ") + each;
        throw ConfigError(concat("quantization: there is no component '", component, "': this pipeline has ", known));
      }
  }

 private:
  FormatChoice otherwise_;
  std::map<std::string, FormatChoice> formats_;
  std::vector<std::string> skip_;
};

}  // namespace ebb
