#pragma once

#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/io/quantization_plan.hpp"
#include "ebb/module/outline.hpp"
#include "ebb/tensor/any_of.hpp"

namespace ebb::examples {

/// Finds names of a plan's `skip` that keep nothing out of quantization: misspelt ones.
class UnusedSkips {
 public:
  explicit UnusedSkips(std::vector<std::string> names) : names_(std::move(names)) {}

  /// A component that is quantized.
  template <class Model>
  void visit(Model& model) {
    for_each_parameter(model, [&]<class P, class Owner>(const std::string& name, P&, Owner&) {
      if constexpr (std::is_same_v<P, AnyTensor>)
        std::erase_if(names_, [&, module = name.substr(0, name.rfind('.'))](const std::string& skip) {
          return is_skipped(module, std::span(&skip, 1));
        });
    });
  }

  /// One sentence for each, after all components.
  std::vector<std::string> warnings() const {
    std::vector<std::string> result;
    for (const std::string& name : names_)
      result.push_back(concat("--skip ", name, " has no effect: no linear that this run quantizes has the name"));
    return result;
  }

 private:
  std::vector<std::string> names_;
};

}  // namespace ebb::examples
