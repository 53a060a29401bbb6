#include "common/progress.hpp"

#include <doctest/doctest.h>
#include <algorithm>
#include <cstddef>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using ebb::examples::format_duration;
using ebb::examples::Progress;
using ebb::examples::ProgressStyle;

struct Screen {
  double now = 100.0;
  std::size_t columns = 80;
  std::ostringstream stream;

  Progress progress(ProgressStyle style) {
    return Progress(
        stream, style, [this] { return now; }, [this] { return columns; });
  }
  std::string text() const { return stream.str(); }
  /// What was drawn, one entry per carriage return.
  std::vector<std::string> drawings() const {
    std::vector<std::string> result;
    std::string current;
    for (const char c : text() + '\r') {
      if (c != '\r') {
        current += c;
      } else {
        if (!current.empty()) result.push_back(current);
        current.clear();
      }
    }
    return result;
  }
};

/// What a terminal shows after `text`: a carriage return moves to the first column, a newline to a fresh
/// line.
std::string shown(const std::string& text) {
  std::string done;
  std::string line;
  std::size_t column = 0;
  for (const char c : text) {
    if (c == '\n') {
      done += line + '\n';
      line.clear();
      column = 0;
    } else if (c == '\r') {
      column = 0;
    } else {
      if (column == line.size()) line += ' ';
      line[column++] = c;
    }
  }
  return done + line;
}

TEST_CASE("lines for a pipe: begin, at most one a second, end; no control characters") {
  Screen screen;
  auto progress = screen.progress(ProgressStyle::lines);
  progress.begin("text");
  screen.now += 1.25;
  progress.begin("denoise", 4);
  for (int step = 0; step < 4; ++step) {
    screen.now += 0.75;
    progress.advance();
  }
  progress.finish();
  CHECK(screen.text() ==
        "text ...\n"
        "text, 1.2 s\n"
        "denoise: 4 steps\n"
        "denoise 2/4, 0.75 s/step, 1.5 s left\n"
        "denoise 4/4, 3.0 s (0.75 s/step)\n");
}

TEST_CASE("quiet says nothing, an exception included") {
  Screen screen;
  {
    auto progress = screen.progress(ProgressStyle::quiet);
    progress.begin("denoise", 2);
    screen.now += 5;
    progress.advance();
    progress.begin("decode");
    progress.finish();
    progress.begin("video");
  }
  CHECK(screen.text().empty());
}

TEST_CASE("the bar grows, tells the time left and ends as one plain line") {
  Screen screen;
  {
    auto progress = screen.progress(ProgressStyle::bar);
    progress.begin("denoise", 4);
    for (int step = 0; step < 4; ++step) {
      screen.now += 2;
      progress.advance();
    }
    const auto drawings = screen.drawings();
    REQUIRE(drawings.size() == 5);
    CHECK(drawings[0].starts_with("denoise [" + std::string(33, ' ') + "] 0/4"));
    CHECK(drawings[1] == "denoise [" + std::string(8, '=') + std::string(25, ' ') + "] 1/4, 2.00 s/step, 6.0 s left");
    CHECK(std::count(drawings[4].begin(), drawings[4].end(), '=') == 33);
    for (const std::string& drawing : drawings) CHECK(drawing.find(']') == 42);  // the bar keeps its width
    progress.finish();
  }
  CHECK(shown(screen.text()).starts_with("denoise 4/4, 8.0 s (2.00 s/step)"));
  CHECK(shown(screen.text()).ends_with("\n"));
  CHECK(shown(screen.text()).find('=') == std::string::npos);
  CHECK(shown(screen.text()).find('\n') == shown(screen.text()).size() - 1);
}

TEST_CASE("no drawing is wider than the terminal, and a shorter one covers the longer one before it") {
  for (std::size_t columns = 1; columns <= 100; ++columns) {
    CAPTURE(columns);
    Screen screen;
    screen.columns = columns;
    auto progress = screen.progress(ProgressStyle::bar);
    progress.begin("denoise", 1000);
    screen.now += 5000;
    progress.advance(3);
    screen.now += 1;
    progress.advance(900);
    progress.finish();
    for (const std::string& drawing : screen.drawings()) {
      const std::string line = drawing.back() == '\n' ? drawing.substr(0, drawing.size() - 1) : drawing;
      CHECK(line.size() <= std::max<std::size_t>(columns, 2) - 1);
    }
    CHECK(shown(screen.text()).find('=') == std::string::npos);
  }
}

TEST_CASE("fast steps are not all drawn") {
  Screen screen;
  auto progress = screen.progress(ProgressStyle::bar);
  progress.begin("quantize", 1000);
  for (int step = 0; step < 1000; ++step) {
    screen.now += 0.001;
    progress.advance();
  }
  CHECK(screen.drawings().size() >= 9);
  CHECK(screen.drawings().size() <= 12);
  progress.finish();
  CHECK(shown(screen.text()).starts_with("quantize 1000/1000, 1.0 s (1.0 ms/step)"));
}

TEST_CASE("an exception leaves the cursor on a fresh line") {
  Screen screen;
  try {
    auto progress = screen.progress(ProgressStyle::bar);
    progress.begin("denoise", 4);
    throw std::runtime_error("out of memory");
  } catch (const std::runtime_error&) {
  }
  CHECK(screen.text().ends_with("0/4\n"));
}

TEST_CASE("steps outside of a phase and more steps than announced do no harm") {
  Screen screen;
  auto progress = screen.progress(ProgressStyle::bar);
  progress.advance();
  progress.finish();
  CHECK(screen.text().empty());
  progress.begin("denoise", 2);
  screen.now += 1;
  progress.advance(5);
  CHECK(screen.drawings().back().starts_with("denoise [" + std::string(33, '=') + "] 5/2, 0.20 s/step"));
  progress.finish();
}

TEST_CASE("durations") {
  CHECK(format_duration(0) == "0.0 s");
  CHECK(format_duration(-1) == "0.0 s");
  CHECK(format_duration(4.25) == "4.2 s");
  CHECK(format_duration(59.94) == "59.9 s");
  CHECK(format_duration(59.96) == "1:00");
  CHECK(format_duration(185) == "3:05");
  CHECK(format_duration(3723) == "1:02:03");
  CHECK(format_duration(1e300).size() < 20);
}

}  // namespace
