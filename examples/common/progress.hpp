#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace ebb::examples {

/// How progress is told: not at all, as lines (a pipe, a log), or as one line drawn over (a terminal).
enum class ProgressStyle { quiet, lines, bar };

/// The style for standard error: a bar only on a terminal that can move its cursor.
inline ProgressStyle progress_style() {
  const char* terminal = std::getenv("TERM");
  const bool capable = terminal != nullptr && std::string_view(terminal) != "dumb";
  return capable && ::isatty(STDERR_FILENO) == 1 ? ProgressStyle::bar : ProgressStyle::lines;
}

/// Columns of the terminal behind standard error; 80 where nobody says.
inline std::size_t terminal_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// "4.2 s", "3:05", "1:02:03".
inline std::string format_duration(double seconds) {
  char text[40];
  if (!(seconds > 0)) seconds = 0;
  seconds = std::min(seconds, 1e9);
  if (seconds < 59.95) {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
    return text;
  }
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole < 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  return text;
}

/// Tells a person how far a run is. A run is a sequence of phases (text, denoise, decode ...), each begun,
/// advanced step by step and finished:
///
///     Progress progress(std::cerr, progress_style());
///     progress.begin("denoise", steps);
///     for (...) progress.advance();
///     progress.finish();
///
/// A bar is redrawn at most ten times a second, as one write that never clears the line first. Lines come at
/// most once a second and phase, besides the last. Not thread-safe. The stream must outlive this object.
class Progress {
 public:
  using Clock = std::function<double()>;         ///< seconds since any fixed point
  using Columns = std::function<std::size_t()>;  ///< width of the terminal, asked at each drawing

  Progress(std::ostream& stream, ProgressStyle style, Clock clock = monotonic_seconds,
           Columns columns = terminal_columns)
      : stream_(stream), style_(style), clock_(std::move(clock)), columns_(std::move(columns)) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// Leaves the cursor on a fresh line when an exception cuts a phase short.
  ~Progress() {
    if (drawn_ == 0) return;
    try {
      stream_ << '\n' << std::flush;
    } catch (...) {  // a stream set to throw: there is nobody left to tell
    }
  }

  /// Starts a phase of `steps` steps; 0 when nobody knows how many. Finishes the one before.
  void begin(std::string_view phase, std::size_t steps = 0) {
    finish();
    phase_ = phase;
    steps_ = steps;
    done_ = 0;
    active_ = true;
    started_ = shown_ = clock_();
    if (style_ == ProgressStyle::bar) draw(started_);
    if (style_ == ProgressStyle::lines) line(phase_ + (steps_ > 0 ? ": " + std::to_string(steps_) + " steps" : " ..."));
  }

  /// Tells that `count` more steps of the phase are done.
  void advance(std::size_t count = 1) {
    if (!active_) return;
    done_ += count;
    const double now = clock_();
    if (style_ == ProgressStyle::bar && now - shown_ >= seconds_between_drawings) draw(now);
    if (style_ == ProgressStyle::lines && now - shown_ >= seconds_between_lines && done_ < steps_) {
      line(phase_ + " " + count_text() + rate_text(now));
      shown_ = now;
    }
  }

  /// Ends the phase with a line that says how long it took. Does nothing between phases.
  void finish() {
    if (!active_) return;
    active_ = false;
    if (style_ == ProgressStyle::quiet) return;
    const double now = clock_();
    std::string text = phase_;
    if (steps_ > 0) text += " " + count_text();
    text += ", " + format_duration(now - started_);
    if (done_ > 1) text += " (" + per_step(now) + ")";
    if (style_ == ProgressStyle::lines) return line(text);
    put(fit(text));
    stream_ << '\n' << std::flush;
    drawn_ = 0;
  }

  static double monotonic_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

 private:
  static constexpr double seconds_between_drawings = 0.1;
  static constexpr double seconds_between_lines = 1.0;
  static constexpr std::size_t widest_bar = 40;
  static constexpr std::size_t narrowest_bar = 8;
  static constexpr std::size_t longest_rate = 35;  // "] /, 12.34 s/step, 12:34:56 left" and a little

  std::string count_text() const {
    return steps_ > 0 ? std::to_string(done_) + "/" + std::to_string(steps_) : std::to_string(done_);
  }

  std::string per_step(double now) const {
    char text[40];
    const double seconds =
        std::clamp((now - started_) / static_cast<double>(std::max<std::size_t>(done_, 1)), 0.0, 1e9);
    if (seconds < 0.1)
      std::snprintf(text, sizeof text, "%.1f ms/step", seconds * 1000);
    else
      std::snprintf(text, sizeof text, "%.2f s/step", seconds);
    return text;
  }

  /// ", 1.23 s/step, 12.3 s left"; empty before the first step.
  std::string rate_text(double now) const {
    if (done_ == 0) return {};
    std::string text = ", " + per_step(now);
    if (steps_ > done_)
      text += ", " +
              format_duration((now - started_) / static_cast<double>(done_) * static_cast<double>(steps_ - done_)) +
              " left";
    return text;
  }

  /// One column stays free: a full line makes some terminals wrap.
  std::string fit(std::string text) const {
    const std::size_t room = std::max<std::size_t>(columns_(), 2) - 1;
    if (text.size() > room) text.resize(room);
    return text;
  }

  void draw(double now) {
    shown_ = now;
    if (steps_ == 0) return put(fit(phase_ + (done_ > 0 ? " " + count_text() : "") + " ..."));
    const std::string before = phase_ + " [";
    const std::string after = "] " + count_text() + rate_text(now);
    const std::size_t room = std::max<std::size_t>(columns_(), 2) - 1;
    // Room for the longest text to come, so that the bar keeps its width while the text changes.
    const std::size_t digits = std::to_string(steps_).size();
    const std::size_t taken = before.size() + std::max(after.size(), 2 * digits + longest_rate);
    if (taken + narrowest_bar > room) return put(fit(phase_ + " " + count_text() + rate_text(now)));
    const std::size_t width = std::min(widest_bar, room - taken);
    const std::size_t filled = std::min(done_, steps_) * width / steps_;
    put(before + std::string(filled, '=') + std::string(width - filled, ' ') + after);
  }

  /// Draws over the line that is there; spaces cover what a longer one would leave behind.
  void put(const std::string& text) {
    const std::size_t room = std::max<std::size_t>(columns_(), 2) - 1;
    std::string bytes = "\r" + text;
    const std::size_t before = std::min(drawn_, room);
    if (before > text.size()) bytes.append(before - text.size(), ' ');
    drawn_ = text.size();
    stream_ << bytes << std::flush;
  }

  void line(const std::string& text) { stream_ << text + '\n' << std::flush; }

  std::ostream& stream_;
  ProgressStyle style_;
  Clock clock_;
  Columns columns_;
  std::string phase_;
  std::size_t steps_ = 0;
  std::size_t done_ = 0;
  bool active_ = false;
  double started_ = 0;
  double shown_ = 0;
  std::size_t drawn_ = 0;  // columns of the unfinished line
};

}  // namespace ebb::examples
