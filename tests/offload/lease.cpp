#include "ebb/offload/lease.hpp"

#include <doctest/doctest.h>

#include <type_traits>
#include <utility>

static_assert(!std::is_copy_constructible_v<ebb::Lease> && std::is_nothrow_move_constructible_v<ebb::Lease>);

TEST_CASE("a lease counts once, wherever it is moved") {
  std::uint32_t users = 0, depth = 0;
  {
    ebb::Lease outer;
    CHECK_FALSE(outer);
    {
      ebb::Lease lease;
      lease.hold_unit(users);
      lease.hold_pass(depth);
      CHECK(users == 1);
      outer = std::move(lease);
    }
    CHECK(outer);
    const ebb::Lease last(std::move(outer));
    CHECK(users == 1);
    CHECK(depth == 1);
  }
  CHECK(users == 0);
  CHECK(depth == 0);
}
