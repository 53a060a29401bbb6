#pragma once

#include <cstdint>
#include <utility>

namespace ebb {

/// While it lives, the weights of the module that was entered stay where they are. Empty for modules that hold no
/// weights of their own. Must not outlive its group.
class [[nodiscard]] Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept
      : unit_(std::exchange(other.unit_, nullptr)), pass_(std::exchange(other.pass_, nullptr)) {}
  Lease& operator=(Lease&& other) noexcept {
    std::swap(unit_, other.unit_);
    std::swap(pass_, other.pass_);
    return *this;
  }
  ~Lease() {
    if (unit_) --*unit_;
    if (pass_) --*pass_;
  }

  void hold_unit(std::uint32_t& users) { ++*(unit_ = &users); }
  void hold_pass(std::uint32_t& depth) { ++*(pass_ = &depth); }
  explicit operator bool() const { return unit_ || pass_; }

 private:
  std::uint32_t* unit_ = nullptr;  // leases on the unit
  std::uint32_t* pass_ = nullptr;  // nested calls of the component's root
};

}  // namespace ebb
