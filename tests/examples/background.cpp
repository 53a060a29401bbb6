#include "common/background.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <thread>
#include <vector>

using ebb::examples::Background;

TEST_CASE("tasks run in their order, beside their caller") {
  std::vector<int> order;
  const auto caller = std::this_thread::get_id();
  bool elsewhere = true;
  Background background;
  for (int i = 0; i < 20; ++i)
    background.run([&order, &elsewhere, caller, i] {
      elsewhere = elsewhere && std::this_thread::get_id() != caller;
      order.push_back(i);
    });
  background.finish();
  CHECK(elsewhere);
  REQUIRE(order.size() == 20);
  for (int i = 0; i < 20; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("what a task throws reaches its caller once") {
  Background background;
  background.run([] { throw std::runtime_error("full"); });
  CHECK_THROWS_WITH(background.run([] {}), "full");
  CHECK_NOTHROW(background.finish());
  background.run([] { throw std::runtime_error("gone"); });
  CHECK_THROWS_WITH(background.finish(), "gone");
  {
    Background dropped;
    dropped.run([] { throw std::runtime_error("nobody asks"); });
  }
}
