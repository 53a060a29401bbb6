// Offloading with real streams, events and copies: whatever the streams' speeds, computation sees the right bytes.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ebb/cuda/context.hpp"
#include "ebb/cuda/loop.hpp"
#include "ebb/cuda/resource.hpp"
#include "ebb/cuda/stream.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/offload/group.hpp"
#include "support/offload_scenario.hpp"
#include "support/repeats.hpp"

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
  explicit DelayedStreams(std::uint64_t seed = 7) : random_(static_cast<unsigned>(seed)) {}

  void copy(std::byte* target, const std::byte* source, std::size_t bytes, Stream stream) {
    delay(stream);
    Streams::copy(target, source, bytes, stream);
  }
  void delay(Stream stream) {
    if (random_() % 2 == 0) spin<<<1, 1, 0, handle(stream)>>>(random_() % 30000);
  }

  /// Lets a random time pass on the issuing thread.
  void idle() { std::this_thread::sleep_for(std::chrono::microseconds(random_() % 50)); }

 private:
  std::mt19937 random_;
};
static_assert(ebb::Backend<DelayedStreams>);

/// What `absorb` does.
std::uint64_t absorbed(std::uint64_t state, const std::byte* bytes, std::size_t count) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(bytes);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count / 4; ++i) sum += (words[i] + 1ull) * (2 * i + 1);
  return state * 6364136223846793005ull + sum;
}

/// A GPU for random pipelines: work goes into a checksum, which the host computes from home memory as well.
class CheckedStreams : public DelayedStreams {
 public:
  using Arena = ebb::cuda::DeviceBuffer<std::byte>;
  struct Fault {};
  static constexpr Stream compute_stream = Stream::compute, copy_stream = Stream::copy;

  CheckedStreams(std::uint64_t seed, std::byte* arena, std::size_t arena_bytes, Fault = {})
      : DelayedStreams(seed), random_(static_cast<unsigned>(seed)) {
    if (arena_bytes != 0) check(cudaMemset(arena, 0xff, arena_bytes));
    state_.upload(std::vector{expected_});
    check(cudaDeviceSynchronize());
  }

  void adopt(std::span<std::byte> home) {
    for (std::byte& byte : home) byte = static_cast<std::byte>(random_());
    pinned_.emplace_back(home);
  }
  void wait(Stream stream, Event& event) {
    ++waits_[stream == Stream::compute ? 0 : 1];
    DelayedStreams::wait(stream, event);
  }
  void copy(std::byte* target, const std::byte* source, std::size_t bytes, Stream stream) {
    if (std::exchange(fail_next_copy, false)) throw ebb::FileError("planted: the copy could not be issued");
    DelayedStreams::copy(target, source, bytes, stream);
  }
  void synchronize(Stream stream) {
    ++host_blocked;
    DelayedStreams::synchronize(stream);
  }
  void compute(const std::byte* place, const std::byte* home, std::size_t bytes) {
    if (bytes == 0) return;  // an empty unit is nowhere
    expected_ = absorbed(expected_, home, bytes);
    delay(Stream::compute);
    absorb<<<1, 256, 0, handle(Stream::compute)>>>(reinterpret_cast<const std::uint32_t*>(place), bytes / 4,
                                                   state_.data());
    check(cudaGetLastError());
  }
  std::string violation() const {
    std::vector<unsigned long long> found(1);
    state_.download(found);
    return found[0] == expected_ ? "" : "the GPU computed on other bytes";
  }
  std::size_t waits(Stream stream) const { return waits_[stream == Stream::compute ? 0 : 1]; }

  std::size_t host_blocked = 0;
  bool fail_next_copy = false;

 private:
  std::mt19937 random_;
  unsigned long long expected_ = 1;
  ebb::cuda::DeviceBuffer<unsigned long long> state_{1};
  std::vector<ebb::cuda::PinnedRegion> pinned_;
  std::size_t waits_[2] = {};
};
static_assert(ebb::test::TestedDevice<CheckedStreams>);

struct Part {
  int number;
};

/// Weights that a toy model walks through, and what a walk computes.
struct Toy {
  explicit Toy(unsigned seed, std::size_t in_group = 0) : index(in_group) {
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
      for (const ebb::Unit& unit : components[0].units) state = absorbed(state, home.data() + unit.begin, unit.bytes());
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
          reinterpret_cast<const std::uint32_t*>(group.address(index, unit.begin)), unit.bytes() / 4, state);
    }
  }

  std::size_t index;  // of its component in a group
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

/// The policies that walk longest: leaves that are streamed, and a budget that keeps half of them.
bool thorough(const ebb::OffloadSpec& policy) {
  const ebb::OffloadSettings settings = policy.settings();
  return settings.level == ebb::Level::leaf && settings.lookahead == 1;
}

}  // namespace

TEST_CASE("walks under random delays in either stream compute the same") {
  for (const unsigned seed : {1u, 2u}) {
    Toy toy(seed);
    const ebb::cuda::PinnedRegion pinned(toy.home.bytes());
    CHECK(pinned.pinned());
    const std::uint64_t expected = toy.expected(1);
    for (const ebb::OffloadSpec& policy : policies(toy.home.size())) {
      CAPTURE(policy.text());
      DelayedStreams streams;
      using Group = ebb::OffloadGroup<ebb::OffloadSpec, DelayedStreams>;
      const ebb::cuda::DeviceBuffer<std::byte> arena(Group::plan(policy, toy.components).arena_bytes);
      // Each walk has a checksum of its own, so that the host need not wait between walks.
      const std::size_t walks = ebb::testing::repeats(thorough(policy) ? 1000 : 100);
      const ebb::cuda::DeviceBuffer<unsigned long long> states(walks);
      check(cudaMemset(arena.data(), 0xff, arena.size()));
      states.upload(std::vector<unsigned long long>(walks, 1));
      check(cudaDeviceSynchronize());
      Group group(policy, streams, Stream::compute, Stream::copy, toy.components, arena.bytes());
      for (std::size_t walk = 0; walk < walks; ++walk) toy.pass(group, streams, states.data() + walk);
      std::vector<unsigned long long> found(walks);
      streams.synchronize(Stream::compute);
      states.download(found);
      CHECK(std::ranges::count(found, expected) == static_cast<std::ptrdiff_t>(walks));
    }
  }
}

TEST_CASE("random pipelines on the GPU compute on the right bytes under random delays in either stream") {
  for (std::uint64_t seed = 1; seed <= ebb::testing::repeats(300); ++seed) {
    CAPTURE(seed);
    REQUIRE(ebb::test::run_random<CheckedStreams>(seed).violation == "");
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
    check(cudaDeviceSynchronize());  // the streams do not wait for the one of the memset
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

TEST_CASE("what a loop does between its steps may move other weights") {
  Toy toy(5);
  Toy other(6, 1);
  const ebb::cuda::PinnedRegion pinned(toy.home.bytes());
  const ebb::cuda::PinnedRegion also_pinned(other.home.bytes());
  ebb::cuda::Engine engine(ebb::cuda::Device::open(0), {});
  const std::vector components{toy.components[0], other.components[0]};
  constexpr std::size_t steps = 20;
  for (const ebb::OffloadSpec& policy : policies(toy.home.size() + other.home.size())) {
    CAPTURE(policy.text());
    const ebb::cuda::DeviceBuffer<std::byte> arena(ebb::cuda::Offload::plan(policy, components).arena_bytes);
    check(cudaMemset(arena.data(), 0xff, arena.size()));
    const ebb::cuda::DeviceBuffer<unsigned long long> states(2);
    states.upload(std::vector<unsigned long long>{1, 1});
    check(cudaDeviceSynchronize());
    ebb::cuda::Offload group(policy, engine.streams, Stream::compute, Stream::copy, components, arena.bytes());
    const ebb::cuda::Context<float> ctx(engine, &group);
    const std::size_t before = engine.graph_launches;
    std::size_t issued = 0;
    repeat(
        ctx, steps,
        [&](std::size_t step) {
          if (step % 8 == 7) other.pass(group, engine.streams, states.data() + 1);
        },
        [&] {
          toy.pass(group, engine.streams, states.data());
          ++issued;
        },
        [](std::size_t, double) {});
    CHECK(engine.graph_launches - before == steps - 1);
    CHECK(issued < steps);  // the others were launched again
    std::vector<unsigned long long> found(2);
    states.download(found);
    CHECK(found[0] == toy.expected(steps));
    CHECK(found[1] == other.expected(2));
  }
}

TEST_CASE("a step is recorded anew once the workspace has grown") {
  ebb::cuda::Engine engine(ebb::cuda::Device::open(0), {});
  const ebb::cuda::Context<float> ctx(engine);
  const ebb::cuda::DeviceBuffer<unsigned long long> state(1);
  state.upload(std::vector<unsigned long long>{1});
  check(cudaDeviceSynchronize());
  constexpr std::size_t count = 1000;
  const auto fill = [&](std::span<std::uint32_t> words) {
    check(cudaMemsetAsync(words.data(), 1, words.size_bytes(), ctx.stream()));
  };
  int issued = 0;
  repeat(
      ctx, 8,
      [&](std::size_t step) {
        const auto frame = ctx.workspace().frame();
        if (step == 5) fill(ctx.template array<std::uint32_t>(1u << 20));
      },
      [&] {
        const auto frame = ctx.workspace().frame();
        const auto words = ctx.template array<std::uint32_t>(count);
        fill(words);
        absorb<<<1, 256, 0, ctx.stream()>>>(words.data(), count, state.data());
        ++issued;
      },
      [](std::size_t, double) {});
  CHECK(issued == 3);  // as issued, recorded, and recorded again
  std::vector<unsigned long long> found(1);
  state.download(found);
  std::uint64_t expected = 1;
  const std::vector<std::byte> ones(4 * count, std::byte{1});
  for (int step = 0; step < 8; ++step) expected = absorbed(expected, ones.data(), ones.size());
  CHECK(found[0] == expected);
}
