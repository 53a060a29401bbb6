// Home memory that cannot be pinned: transfers still work, and the user hears why.
#include "common/pins.hpp"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "flux/model.hpp"
#include "support/golden.hpp"

using namespace ebb;

namespace {

/// The whole pages of some memory, which nobody can reach while this lives.
class Unreachable {
 public:
  explicit Unreachable(std::span<const std::byte> memory) {
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
    const std::uintptr_t first = (begin + page - 1) / page * page;
    const std::uintptr_t last = (begin + memory.size()) / page * page;
    REQUIRE(first < last);
    address_ = reinterpret_cast<void*>(first);
    bytes_ = last - first;
    REQUIRE(::mprotect(address_, bytes_, PROT_NONE) == 0);
  }
  Unreachable(const Unreachable&) = delete;
  Unreachable& operator=(const Unreachable&) = delete;
  ~Unreachable() { ::mprotect(address_, bytes_, PROT_READ | PROT_WRITE); }

 private:
  void* address_ = nullptr;
  std::size_t bytes_ = 0;
};

constexpr std::size_t all = std::numeric_limits<std::size_t>::max();

}  // namespace

TEST_CASE("what is not pinned is named, with the reason and what to do") {
  auto model = flux::Model::open(testing::Golden("dev").directory());
  const examples::Weights weights(model, {{}, DType::f32, 1, {}});
  {
    const examples::Pins pins(weights, all);
    CHECK(pins.warnings().empty());
    CHECK(pins.holds("transformer"));
  }
  {
    const examples::Pins pins(weights, 0);
    REQUIRE(pins.warnings().size() == weights.homes().size());
    for (std::size_t i = 0; i < weights.homes().size(); ++i) {
      const std::string& name = weights.homes()[i].outline.name;
      CHECK(!pins.holds(name));
      CHECK(pins.warnings()[i].starts_with(name + ": "));
      CHECK(pins.warnings()[i].find("raise --pin-budget") != std::string::npos);
    }
  }
  {
    const auto& home = weights.homes().front();
    const Unreachable unreachable(std::span(home.bytes, home.outline.end));
    const examples::Pins pins(weights, all);
    REQUIRE(pins.warnings().size() == 1);
    CHECK(!pins.holds(home.outline.name));
    CHECK(pins.holds(weights.homes().back().outline.name));
    CHECK(pins.warnings()[0].find("the system refused (cudaError") != std::string::npos);
    CHECK(pins.warnings()[0].find("raise ulimit -l, free memory, or use --offload-to-disk") != std::string::npos);
  }
  CHECK(examples::Pins(weights, all).warnings().empty());  // nothing is left pinned or refused
}
