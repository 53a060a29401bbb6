#pragma once

#include <future>
#include <utility>

namespace ebb::examples {

/// Runs tasks beside the caller, one at a time and in their order.
class Background {
 public:
  /// Starts `task()` on another thread, once the task before it has ended. What a task reads and writes must live until
  /// then. @throws what the task before it has thrown
  template <class Task>
  void run(Task task) {
    finish();
    pending_ = std::async(std::launch::async, std::move(task));
  }
  /// Waits for the last task. @throws what it has thrown
  void finish() {
    if (pending_.valid()) pending_.get();
  }

 private:
  std::future<void> pending_;  // waits in its destructor
};

}  // namespace ebb::examples
