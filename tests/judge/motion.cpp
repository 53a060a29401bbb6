#include "judge/motion.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <functional>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

using namespace ebb;

namespace {

/// The motion of what is at `place` of 0 to 1 in frames 0 to 16.
std::string motion(const std::function<std::pair<double, double>(double)>& place) {
  std::vector<judge::Moment> path;
  for (std::size_t frame = 0; frame < 17; ++frame) {
    const auto [x, y] = place(static_cast<double>(frame) / 16);
    path.push_back({.frame = frame, .x = x, .y = y});
  }
  return std::string(judge::motion_of(path));
}

double bounce(double part) { return 0.8 - 0.5 * std::abs(std::sin(std::numbers::pi * part)); }

}  // namespace

TEST_CASE("straight ways") {
  CHECK(motion([](double t) { return std::pair{0.8 - 0.5 * t, 0.4}; }) == "left");
  CHECK(motion([](double t) { return std::pair{0.2 + 0.5 * t, 0.4 + 0.1 * t}; }) == "right");
  CHECK(motion([](double t) { return std::pair{0.3, 0.8 - 0.5 * t}; }) == "up");
  CHECK(motion([](double t) { return std::pair{0.3, 0.2 + 0.6 * t * t}; }) == "down");
}

TEST_CASE("what falls and rises bounces, what rises and falls does not") {
  CHECK(motion([](double t) { return std::pair{0.3, bounce(0.5 + 1.3 * t)}; }) == "bounce");
  CHECK(motion([](double t) { return std::pair{0.3, bounce(0.2 + 1.5 * t)}; }) == "bounce");
  CHECK(motion([](double t) { return std::pair{0.3, bounce(t)}; }) == "unclear");
  CHECK(motion([](double t) { return std::pair{0.1 + 0.8 * t, bounce(0.5 + t)}; }) == "unclear");
}

TEST_CASE("what hardly moves is still") {
  CHECK(motion([](double t) { return std::pair{0.5 + 0.05 * std::sin(20 * t), 0.5 - 0.05 * t}; }) == "still");
}

TEST_CASE("other ways are unclear") {
  CHECK(motion([](double t) { return std::pair{0.2 + 0.5 * t, 0.2 + 0.5 * t}; }) == "unclear");
  CHECK(motion([](double t) { return std::pair{0.5 + 0.2 * t, 0.4}; }) == "unclear");
  CHECK(motion([](double t) { return std::pair{0.2 + 0.4 * t + 0.15 * std::sin(12 * t), 0.4}; }) == "unclear");
  CHECK(judge::motion_of({}) == "unclear");
  CHECK(judge::motion_of({{0, 0.1, 0.5}, {1, 0.3, 0.5}, {2, 0.5, 0.5}, {3, 0.7, 0.5}}) == "unclear");
}
