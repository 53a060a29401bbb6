#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace ebb {

/// Predicts which unit comes next. Starts from the expected order; each pass that ran differently (modules left out,
/// executed twice, or in another order) becomes the expectation for the next one. After the last unit the first one
/// of the next pass is predicted. A wrong prediction costs time, never correctness.
class ExecutionOrder {
 public:
  ExecutionOrder() = default;
  explicit ExecutionOrder(std::vector<std::size_t> expected) : expected_(std::move(expected)) {}

  /// Ends the pass before, if any.
  void begin_pass() {
    if (!trace_.empty() && trace_ != expected_) std::swap(expected_, trace_);
    trace_.clear();
    next_ = 0;
    ++passes_;
  }

  void enter(std::size_t unit) {
    trace_.push_back(unit);
    for (std::size_t ahead = 0; ahead < expected_.size(); ++ahead) {
      const std::size_t position = (next_ + ahead) % expected_.size();
      if (expected_[position] != unit) continue;
      next_ = (position + 1) % expected_.size();
      return;
    }
  }

  /// For models whose passes nobody announces: entering `unit` looks like the start of another pass.
  bool looks_like_new_pass(std::size_t unit) const {
    if (passes_ == 0) return true;
    return (!trace_.empty() && unit == trace_.front() && trace_.size() >= expected_.size()) ||
           trace_.size() > 4 * expected_.size() + 64;  // keeps the trace bounded
  }

  /// No pass follows the running one, or, when none is running, the next one.
  void expect_no_more(bool running) { last_pass_ = running ? passes_ : passes_ + 1; }

  /// Calls `visit(unit)` for the predicted units, soonest first, until it returns false; at most one whole pass.
  template <class Visit>
  void upcoming(Visit&& visit) const {
    const bool wraps = passes_ != last_pass_ || trace_.empty();
    for (std::size_t ahead = 0; ahead < expected_.size(); ++ahead) {
      const std::size_t position = next_ + ahead;
      // After the last unit `next_` is 0: whether that is a wrap shows in what was entered.
      const bool wrapped = position >= expected_.size() || (next_ == 0 && !trace_.empty());
      if (wrapped && !wraps) return;
      if (!visit(expected_[position % expected_.size()])) return;
    }
  }

  const std::vector<std::size_t>& expected() const { return expected_; }
  std::size_t passes() const { return passes_; }

 private:
  std::vector<std::size_t> expected_;
  std::vector<std::size_t> trace_;  // of the running pass
  std::size_t next_ = 0;            // position in expected_
  std::size_t passes_ = 0;          // begun so far
  std::size_t last_pass_ = 0;       // number of the pass that is the last one; 0: not known
};

}  // namespace ebb
