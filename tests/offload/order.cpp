#include "ebb/offload/order.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace {

using Units = std::vector<std::size_t>;

Units next(const ebb::ExecutionOrder& order, std::size_t count) {
  Units units;
  order.upcoming([&](std::size_t unit) {
    if (units.size() == count) return false;
    units.push_back(unit);
    return true;
  });
  return units;
}

void run(ebb::ExecutionOrder& order, const Units& units) {
  order.begin_pass();
  for (const std::size_t unit : units) order.enter(unit);
}

}  // namespace

TEST_CASE("the expected order is predicted, and after its end its beginning") {
  ebb::ExecutionOrder order({5, 6, 7});
  order.begin_pass();
  CHECK(next(order, 2) == Units{5, 6});
  order.enter(5);
  CHECK(next(order, 2) == Units{6, 7});
  order.enter(6);
  order.enter(7);
  CHECK(next(order, 9) == Units{5, 6, 7});
}

TEST_CASE("a pass that ran differently is what the next one is expected to be") {
  ebb::ExecutionOrder order({0, 1, 2, 3});
  run(order, {0, 2, 2, 1});
  CHECK(order.expected() == Units{0, 1, 2, 3});
  order.begin_pass();
  CHECK(order.expected() == Units{0, 2, 2, 1});
  CHECK(next(order, 4) == Units{0, 2, 2, 1});
  order.enter(0);
  order.enter(2);
  CHECK(next(order, 2) == Units{2, 1});
  order.enter(2);
  CHECK(next(order, 1) == Units{1});
}

TEST_CASE("a module left out, one that is new and a pass cut short do not derail the prediction") {
  ebb::ExecutionOrder order({0, 1, 2, 3, 4});
  order.begin_pass();
  order.enter(0);
  order.enter(2);
  CHECK(next(order, 2) == Units{3, 4});
  order.enter(9);
  CHECK(next(order, 2) == Units{3, 4});
  order.begin_pass();
  CHECK(order.expected() == Units{0, 2, 9});
  CHECK(next(order, 1) == Units{0});
  order.begin_pass();  // an empty pass teaches nothing
  CHECK(order.expected() == Units{0, 2, 9});
}

TEST_CASE("nothing is predicted after the end of the last pass") {
  ebb::ExecutionOrder order({0, 1});
  order.expect_no_more(false);
  run(order, {0});
  CHECK(next(order, 2) == Units{1});
  order.enter(1);
  CHECK(next(order, 2) == Units{});
  run(order, {0, 1});
  CHECK(next(order, 1) == Units{0});
  order.expect_no_more(true);
  CHECK(next(order, 1) == Units{});
}

TEST_CASE("passes that nobody announces are found, and traces stay bounded") {
  ebb::ExecutionOrder order({0, 1, 2});
  CHECK(order.looks_like_new_pass(0));
  run(order, {0, 1});
  CHECK_FALSE(order.looks_like_new_pass(0));  // a repeat, not enough for a pass
  order.enter(2);
  CHECK_FALSE(order.looks_like_new_pass(1));
  CHECK(order.looks_like_new_pass(0));
  for (int i = 0; i < 100; ++i) order.enter(1);
  CHECK(order.looks_like_new_pass(2));
}
