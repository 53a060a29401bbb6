// Offloading with real streams, events and copies: whatever the streams' speeds, computation sees the right bytes.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

#include "ebb/cuda/context.hpp"
#include "ebb/cuda/loop.hpp"
#include "ebb/cuda/resource.hpp"
#include "ebb/cuda/stream.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/offload/group.hpp"

namespace {

using ebb::cuda::check;
using ebb::cuda::Stream;

__global__ void spin(unsigned long long cycles) {
  const long long start = clock64();
  while (static_cast<unsigned long long>(clock64() - start) < cycles) {
  }
}

/// state = state * factor + a sum that every word and its place go into.
__global__ void absorb(const std::uint32_t* words, std::size_t count, unsigned long long* state) {
  __shared__ unsigned long long total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long sum = 0;
  for (std::size_t i = threadIdx.x; i < count; i += blockDim.x) sum += (words[i] + 1ull) * (2 * i + 1);
  atomicAdd(&total, sum);
  __syncthreads();
  if (threadIdx.x == 0) *state = *state * 6364136223846793005ull + total;
}

/// Streams whose work takes random time.
class DelayedStreams : public ebb::cuda::Streams {
 public:
  void copy(std::byte* target, const std::byte* source, std::size_t bytes, Stream stream) {
    delay(stream);
    Streams::copy(target, source, bytes, stream);
  }
  void delay(Stream stream) {
    if (random_() % 2 == 0) spin<<<1, 1, 0, handle(stream)>>>(random_() % 30000);
  }

 private:
  std::mt19937 random_{7};
};
static_assert(ebb::Backend<DelayedStreams>);

struct Part {
  int number;
};

/// Weights that a toy model walks through, and what a walk computes.
struct Toy {
  explicit Toy(unsigned seed) {
    std::mt19937 random(seed);
    ebb::Component component{.name = "toy", .home = nullptr, .root = ebb::id_of(*this)};
    std::size_t end = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::size_t begin = end;
      end += 256 * (1 + random() % 300);
      component.units.push_back({"part", begin, end, {ebb::id_of(parts[i])}});
    }
    home = ebb::AlignedBuffer(end);
    auto* words = reinterpret_cast<std::uint32_t*>(home.data());
    for (std::size_t i = 0; i < end / 4; ++i) words[i] = random();
    component.home = home.data();
    components.push_back(component);
  }
  std::uint64_t expected(int passes) const {
    std::uint64_t state = 1;
    for (int pass = 0; pass < passes; ++pass)
      for (const ebb::Unit& unit : components[0].units) {
        const auto* words = reinterpret_cast<const std::uint32_t*>(home.data() + unit.begin);
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < unit.bytes() / 4; ++i) sum += (words[i] + 1ull) * (2 * i + 1);
        state = state * 6364136223846793005ull + sum;
      }
    return state;
  }
  template <class Group, class Streams>
  void pass(Group& group, Streams& streams, unsigned long long* state, std::size_t count = 13) {
    const auto whole = group.enter(ebb::id_of(*this));
    for (std::size_t i = 0; i < count; ++i) {
      const auto lease = group.enter(ebb::id_of(parts[i]));
      const ebb::Unit& unit = components[0].units[i];
      if constexpr (requires { streams.delay(Stream::compute); }) streams.delay(Stream::compute);
      absorb<<<1, 256, 0, streams.handle(Stream::compute)>>>(
          reinterpret_cast<const std::uint32_t*>(group.address(0, unit.begin)), unit.bytes() / 4, state);
    }
  }

  std::vector<Part> parts{13, Part{}};
  ebb::AlignedBuffer home;
  std::vector<ebb::Component> components;
};

std::vector<ebb::OffloadSpec> policies(std::size_t all) {
  std::vector<ebb::OffloadSpec> result{ebb::OffloadSpec(ebb::NoOffload{}), ebb::OffloadSpec(ebb::ModelOffload{})};
  for (const std::size_t lookahead : {0, 1, 2, 5}) {
    result.emplace_back(ebb::LeafOffload{lookahead});
    result.emplace_back(ebb::Budget{all / 2, lookahead});
  }
  return result;
}

}  // namespace

TEST_CASE("walks under random delays in either stream compute the same") {
  for (const unsigned seed : {1u, 2u}) {
    Toy toy(seed);
    const ebb::cuda::PinnedRegion pinned(toy.home.bytes());
    CHECK(pinned.pinned());
    for (const ebb::OffloadSpec& policy : policies(toy.home.size())) {
      CAPTURE(policy.text());
      DelayedStreams streams;
      using Group = ebb::OffloadGroup<ebb::OffloadSpec, DelayedStreams>;
      const ebb::cuda::DeviceBuffer<std::byte> arena(Group::plan(policy, toy.components).arena_bytes);
      check(cudaMemset(arena.data(), 0xff, arena.size()));
      const ebb::cuda::DeviceBuffer<unsigned long long> state(1);
      state.upload(std::vector<unsigned long long>{1});
      Group group(policy, streams, Stream::compute, Stream::copy, toy.components, arena.bytes());
      for (int walk = 0; walk < 100; ++walk) toy.pass(group, streams, state.data());
      std::vector<unsigned long long> found(1);
      streams.synchronize(Stream::compute);
      state.download(found);
      CHECK(found[0] == toy.expected(100));
    }
  }
}

TEST_CASE("a walk that was recorded with its copies can be launched again and again") {
  Toy toy(3);
  const ebb::cuda::PinnedRegion pinned(toy.home.bytes());
  for (const ebb::OffloadSpec& policy : policies(toy.home.size())) {
    CAPTURE(policy.text());
    DelayedStreams streams;
    using Group = ebb::OffloadGroup<ebb::OffloadSpec, DelayedStreams>;
    const ebb::cuda::DeviceBuffer<std::byte> arena(Group::plan(policy, toy.components).arena_bytes);
    check(cudaMemset(arena.data(), 0xff, arena.size()));
    const ebb::cuda::DeviceBuffer<unsigned long long> state(1);
    state.upload(std::vector<unsigned long long>{1});
    Group group(policy, streams, Stream::compute, Stream::copy, toy.components, arena.bytes());
    int walks = 0;
    toy.pass(group, streams, state.data());
    ++walks;
    for (int recording = 0; recording < 3; ++recording) {
      const auto before = group.state();
      streams.begin_capture();
      toy.pass(group, streams, state.data());
      const ebb::cuda::Graph graph = streams.end_capture();
      const bool repeats = group.state().present == before.present;
      if (recording == 2) CHECK(repeats);
      for (int launch = 0; launch < (repeats ? 20 : 1); ++launch, ++walks)
        graph.launch(streams.handle(Stream::compute));
      streams.order(Stream::compute, Stream::copy);
      toy.pass(group, streams, state.data());  // and as issued, in between
      ++walks;
      streams.synchronize(Stream::compute);
    }
    std::vector<unsigned long long> found(1);
    state.download(found);
    CHECK(found[0] == toy.expected(walks));
  }
}

TEST_CASE("a step that fails while it is recorded leaves weights that can be used") {
  Toy toy(4);
  const ebb::cuda::PinnedRegion pinned(toy.home.bytes());
  ebb::cuda::Engine engine(ebb::cuda::Device::open(0), {});
  for (const ebb::OffloadSpec& policy : policies(toy.home.size())) {
    CAPTURE(policy.text());
    const ebb::cuda::DeviceBuffer<std::byte> arena(ebb::cuda::Offload::plan(policy, toy.components).arena_bytes);
    check(cudaMemset(arena.data(), 0xff, arena.size()));
    const ebb::cuda::DeviceBuffer<unsigned long long> state(1);
    state.upload(std::vector<unsigned long long>{1});
    ebb::cuda::Offload group(policy, engine.streams, Stream::compute, Stream::copy, toy.components, arena.bytes());
    const ebb::cuda::Context<float> ctx(engine, &group);
    const auto prepare = [](std::size_t) {};
    const auto done = [](std::size_t, double) {};
    int issued = 0;
    const auto fails = [&] {
      toy.pass(group, engine.streams, state.data(), ++issued == 1 ? 13 : 6);
      if (issued == 2) throw std::runtime_error("planted");
    };
    CHECK_THROWS_AS(repeat(ctx, 5, prepare, fails, done), std::runtime_error);
    CHECK(!engine.streams.capturing());
    const std::size_t before = engine.graph_launches;
    repeat(
        ctx, 5, prepare, [&] { toy.pass(group, engine.streams, state.data()); }, done);
    CHECK(engine.graph_launches - before == 4);
    std::vector<unsigned long long> found(1);
    state.download(found);
    CHECK(found[0] == toy.expected(6));
  }
}
