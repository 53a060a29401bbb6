#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "ebb/memory/backend.hpp"

namespace ebb::host {

/// A point in a stream. Generation-counted: recording it again is a new promise, and a wait refers to the latest
/// promise at the time when the wait was issued.
class Event {
 public:
  Event() = default;

 private:
  friend class Streams;
  struct State {
    std::mutex mutex;
    std::condition_variable completed_changed;
    std::uint64_t issued = 0;
    std::uint64_t completed = 0;
    std::exception_ptr error;  // of the stream, when the latest completed record ran
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();  // queued operations keep it alive
};

/// Which of the two streams: computation runs on the thread that issues it, copies run on a thread of their own.
enum class Stream { compute, copy };

/// Time that computation spent waiting for copies.
struct Stalls {
  std::size_t count = 0;
  double seconds = 0;
};

/// The CPU as a Backend. "Device" memory is a bounded arena in RAM, "home" memory may be a file mapped from disk.
/// All members are for one issuing thread, which is the compute stream. An exception on the copy thread makes it
/// skip all further copies; it is rethrown by each wait of the compute stream on a later event and by
/// `synchronize`, which clears it.
class Streams {
 public:
  using Stream = host::Stream;
  using Event = host::Event;
  using Copy = std::function<void(std::byte* target, const std::byte* source, std::size_t bytes)>;
  static constexpr bool computes_on_home_memory = true;

  /// `copy` moves bytes on the copy thread; it may throw. By default memcpy, which faults mapped files in.
  explicit Streams(Copy copy = [](std::byte* target, const std::byte* source,
                                  std::size_t bytes) { std::memcpy(target, source, bytes); })
      : copy_(std::move(copy)), worker_([this] { run(); }) {}
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;
  /// Copies that have not started are dropped: who needs them synchronizes first.
  ~Streams() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    queue_changed_.notify_all();
    worker_.join();
  }

  Event create_event() const { return {}; }
  void destroy_event(Event& event) const noexcept { event.state_.reset(); }

  void record(Event& event, Stream stream) {
    Operation operation{.kind = Kind::record, .event = event.state_};
    {
      const std::lock_guard lock(event.state_->mutex);
      operation.generation = ++event.state_->issued;
    }
    if (stream == Stream::copy)
      enqueue(std::move(operation));
    else
      complete(operation, nullptr);  // what the compute stream was given before has already run
  }

  void wait(Stream stream, Event& event) {
    Operation operation{.kind = Kind::wait, .event = event.state_};
    {
      const std::lock_guard lock(event.state_->mutex);
      operation.generation = event.state_->issued;
    }
    if (stream == Stream::copy) {
      enqueue(std::move(operation));
      return;
    }
    Event::State& state = *event.state_;
    std::unique_lock lock(state.mutex);
    if (state.completed < operation.generation) {
      const auto start = std::chrono::steady_clock::now();
      state.completed_changed.wait(lock, [&] { return state.completed >= operation.generation; });
      const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
      ++stalls_.count;
      stalls_.seconds += waited.count();
    }
    if (state.error) std::rethrow_exception(state.error);
  }

  void copy(std::byte* target, const std::byte* source, std::size_t bytes, Stream stream) {
    if (stream == Stream::compute)
      copy_(target, source, bytes);
    else
      enqueue({.kind = Kind::copy, .target = target, .source = source, .bytes = bytes});
  }

  void synchronize(Stream stream) {
    if (stream == Stream::compute) return;
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [&] { return queue_.empty() && !busy_; });
    if (const auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
  }

  /// Of the compute stream, since construction.
  Stalls stalls() const { return stalls_; }

 private:
  enum class Kind { copy, record, wait };
  struct Operation {
    Kind kind = Kind::copy;
    std::byte* target = nullptr;
    const std::byte* source = nullptr;
    std::size_t bytes = 0;
    std::shared_ptr<Event::State> event = {};
    std::uint64_t generation = 0;
  };

  void enqueue(Operation operation) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(operation));
    }
    queue_changed_.notify_one();
  }

  static void complete(const Operation& operation, const std::exception_ptr& error) {
    Event::State& state = *operation.event;
    {
      const std::lock_guard lock(state.mutex);
      state.completed = operation.generation;
      state.error = error;
    }
    state.completed_changed.notify_all();
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      queue_changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const Operation operation = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      std::exception_ptr error = error_;
      const bool skip = stopping_ || error;
      lock.unlock();
      if (operation.kind == Kind::record) {
        complete(operation, error);
      } else if (operation.kind == Kind::wait) {
        std::unique_lock event_lock(operation.event->mutex);
        operation.event->completed_changed.wait(event_lock,
                                                [&] { return operation.event->completed >= operation.generation; });
      } else if (!skip) {
        try {
          copy_(operation.target, operation.source, operation.bytes);
        } catch (...) {
          error = std::current_exception();
        }
      }
      lock.lock();
      error_ = error;
      busy_ = false;
      if (queue_.empty()) idle_.notify_all();
    }
  }

  Copy copy_;
  std::mutex mutex_;  // guards what follows, up to the stalls
  std::condition_variable queue_changed_;
  std::condition_variable idle_;
  std::deque<Operation> queue_;
  std::exception_ptr error_;
  bool busy_ = false;
  bool stopping_ = false;
  Stalls stalls_;       // of the issuing thread alone
  std::thread worker_;  // last: it uses everything above
};
static_assert(ebb::Backend<Streams>);

}  // namespace ebb::host
