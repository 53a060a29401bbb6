#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <exception>

#include "ebb/io/atomic_file.hpp"

namespace ebb::examples {

/// The user asked the program to stop. No ebb::Error, because nothing went wrong.
class Interrupted : public std::exception {
 public:
  explicit Interrupted(int signal) : signal_(signal) {}
  const char* what() const noexcept override { return "interrupted"; }
  int signal() const noexcept { return signal_; }
  /// What a shell reports for a program ended by that signal: 130 for Ctrl-C.
  int exit_code() const noexcept { return 128 + signal_; }

 private:
  int signal_;
};

namespace detail {

inline constinit std::atomic<int> pending_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may not wait for a lock");

/// Async-signal-safe: touches lock-free atomics, unlink, sigaction and raise only.
inline void on_interrupt(int signal) {
  const int saved_errno = errno;
  if (pending_signal.exchange(signal) != 0) {
    ebb::unlink_partial_files();
    struct sigaction original {};
    original.sa_handler = SIG_DFL;
    ::sigaction(signal, &original, nullptr);
    ::raise(signal);  // stays blocked until this handler returns, then ends the process
  }
  errno = saved_errno;
}

}  // namespace detail

/// While one is alive, SIGINT (Ctrl-C), SIGTERM and SIGHUP only set a flag, which throw_if_interrupted()
/// turns into an exception, so that destructors run. The second such signal deletes partial output files and
/// ends the process at once. A signal that was ignored before (nohup, a shell's background job) stays
/// ignored. SIGXFSZ and SIGPIPE are ignored, so that a file size limit becomes a write error with a message, and a
/// reader of the output who leaves does not end the process with its partial files still there. Make one, in main,
/// before threads start.
class InterruptGuard {
 public:
  InterruptGuard() {
    detail::pending_signal.store(0);
    struct sigaction handler {};
    handler.sa_handler = detail::on_interrupt;
    handler.sa_flags = SA_RESTART;
    sigemptyset(&handler.sa_mask);
    for (std::size_t i = 0; i < interrupting; ++i) {
      ::sigaction(signals[i], nullptr, &previous_[i]);
      if (previous_[i].sa_handler != SIG_IGN) ::sigaction(signals[i], &handler, nullptr);
    }
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    for (std::size_t i = interrupting; i < signals.size(); ++i) ::sigaction(signals[i], &ignore, &previous_[i]);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  ~InterruptGuard() {
    for (std::size_t i = 0; i < signals.size(); ++i) ::sigaction(signals[i], &previous_[i], nullptr);
    detail::pending_signal.store(0);
  }

 private:
  static constexpr std::array signals{SIGINT, SIGTERM, SIGHUP, SIGXFSZ, SIGPIPE};
  static constexpr std::size_t interrupting = 3;  // the others are ignored
  std::array<struct sigaction, signals.size()> previous_{};
};

/// True from the first signal on until the guard dies.
inline bool interrupted() { return detail::pending_signal.load() != 0; }

/// For loops, between one step and the next. @throws Interrupted when a signal has arrived
inline void throw_if_interrupted() {
  if (const int signal = detail::pending_signal.load(); signal != 0) throw Interrupted(signal);
}

}  // namespace ebb::examples
