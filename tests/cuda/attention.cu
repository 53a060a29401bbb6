#include "ebb/cuda/attention.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "random.hpp"
#include "support/repeats.hpp"

namespace {

using ebb::AttentionMask;
using ebb::AttentionShape;
using ebb::cuda::AttentionArguments;
using ebb::cuda::DeviceBuffer;

struct Options {
  AttentionMask mask = AttentionMask::none;
  bool bias = false;
  float amplitude = 1.0f;
  std::size_t padding = 0;  // elements between the rows of every matrix
  std::size_t shift = 0;    // elements before the first row
};

/// Inputs of one attention on both sides, and a poisoned output.
template <class T>
struct Problem {
  AttentionShape shape;
  Options options;
  float scale;
  std::size_t stride;
  std::vector<T> q, k, v;
  std::vector<float> bias;
  DeviceBuffer<T> device_q, device_k, device_v, y;
  DeviceBuffer<float> device_bias;
  DeviceBuffer<std::byte> scratch;
  DeviceBuffer<unsigned> flags;

  Problem(AttentionShape extents, Options chosen, unsigned seed) : shape(extents), options(chosen) {
    scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    stride = shape.heads * shape.head_dim + options.padding;
    const std::size_t queries = options.shift + shape.batch * shape.query_tokens * stride;
    const std::size_t keys = options.shift + shape.batch * shape.key_tokens * stride;
    q = random_values<T>(queries, seed, options.amplitude);
    k = random_values<T>(keys, seed + 1, options.amplitude);
    v = random_values<T>(keys, seed + 2, options.amplitude);
    device_q = on_device(q);
    device_k = on_device(k);
    device_v = on_device(v);
    y = poisoned<T>(queries);
    if (options.bias) {
      bias = random_values<float>(shape.heads * shape.query_tokens * shape.key_tokens, seed + 3, 2.0f);
      for (std::size_t i = 0; i < bias.size(); ++i)
        if (i % 5 == 0 && i % shape.key_tokens != 0) bias[i] = -std::numeric_limits<float>::infinity();
      device_bias = on_device(bias);
    }
    int multiprocessors = 0;
    ebb::cuda::check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    const auto bytes = ebb::cuda::sm90_attention_workspace(multiprocessors);
    scratch = poisoned<std::byte>(bytes.scratch);
    flags = DeviceBuffer<unsigned>(bytes.flags / sizeof(unsigned));
    ebb::cuda::check(cudaMemset(flags.data(), 0, bytes.flags));
  }

  AttentionArguments<T> arguments(bool with_workspace = true) const {
    AttentionArguments<T> a;
    a.query = device_q.data() + options.shift;
    a.key = device_k.data() + options.shift;
    a.value = device_v.data() + options.shift;
    a.output = y.data() + options.shift;
    a.query_stride = a.key_stride = a.value_stride = a.output_stride = stride;
    a.shape = shape;
    a.scale = scale;
    a.mask = options.mask;
    a.bias = options.bias ? device_bias.data() : nullptr;
    if (with_workspace) {
      a.scratch = scratch.data();
      a.flags = flags.data();
    }
    return a;
  }

  /// Every `step`-th row of the output in double precision, against what was found; padding must be untouched.
  double error(const std::vector<T>& found, std::size_t step = 1) const {
    std::vector<T> samples;
    std::vector<double> expected;
    std::vector<double> weights(shape.key_tokens);
    const std::size_t d = shape.head_dim;
    for (std::size_t job = 0; job < shape.batch * shape.heads * shape.query_tokens; job += step) {
      const std::size_t row = job % shape.query_tokens;
      const std::size_t head = job / shape.query_tokens % shape.heads;
      const std::size_t item = job / shape.query_tokens / shape.heads;
      const std::size_t at = options.shift + (item * shape.query_tokens + row) * stride + head * d;
      const std::size_t first_key = options.shift + item * shape.key_tokens * stride + head * d;
      const std::size_t seen =
          options.mask == AttentionMask::causal ? row + 1 + shape.key_tokens - shape.query_tokens : shape.key_tokens;
      double largest = -std::numeric_limits<double>::infinity();
      for (std::size_t j = 0; j < seen; ++j) {
        double score = 0.0;
        for (std::size_t i = 0; i < d; ++i)
          score += static_cast<double>(q[at + i]) * static_cast<double>(k[first_key + j * stride + i]);
        score *= static_cast<double>(scale);
        if (options.bias) score += static_cast<double>(bias[(head * shape.query_tokens + row) * shape.key_tokens + j]);
        weights[j] = score;
        largest = std::max(largest, score);
      }
      double sum = 0.0;
      std::vector<double> result(d);
      for (std::size_t j = 0; j < seen; ++j) {
        const double weight = std::exp(weights[j] - largest);
        sum += weight;
        for (std::size_t i = 0; i < d; ++i) result[i] += weight * static_cast<double>(v[first_key + j * stride + i]);
      }
      for (std::size_t i = 0; i < d; ++i) {
        expected.push_back(result[i] / sum);
        samples.push_back(found[at + i]);
      }
    }
    std::size_t touched = 0;
    const auto untouched = [](T value) {
      const T poison = [] {
        T all;
        std::memset(&all, 0xff, sizeof(T));
        return all;
      }();
      return std::memcmp(&value, &poison, sizeof(T)) == 0;
    };
    for (std::size_t i = 0; i < options.shift; ++i) touched += !untouched(found[i]);
    for (std::size_t row = 0; row < shape.batch * shape.query_tokens; ++row)
      for (std::size_t i = stride - options.padding; i < stride; ++i)
        touched += !untouched(found[options.shift + row * stride + i]);
    CHECK(touched == 0);
    return relative_error(samples, expected);
  }
};

template <class T>
bool all_zero(const DeviceBuffer<T>& buffer) {
  const auto values = on_host(buffer);
  return std::all_of(values.begin(), values.end(), [](T value) { return value == 0; });
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

const AttentionShape hopper_shapes[] = {
    {1, 1, 128, 1, 1},    {1, 1, 128, 64, 144},   {1, 1, 128, 128, 128},  {2, 3, 128, 129, 145}, {1, 3, 128, 300, 300},
    {2, 5, 128, 77, 512}, {1, 5, 128, 1021, 333}, {3, 2, 128, 200, 1500}, {1, 1, 128, 1, 5000},
};

template <class T>
void check_hopper() {
  unsigned seed = 10;
  for (const AttentionShape& shape : hopper_shapes)
    for (const float amplitude : {1.0f, 4.0f})
      for (const std::size_t padding : {std::size_t{0}, std::size_t{264}}) {
        CAPTURE(shape.batch);
        CAPTURE(shape.heads);
        CAPTURE(shape.query_tokens);
        CAPTURE(shape.key_tokens);
        CAPTURE(amplitude);
        Problem<T> problem(shape, {.amplitude = amplitude, .padding = padding}, seed += 10);
        for (const bool with_workspace : {true, false}) {
          ebb::cuda::check(cudaMemset(problem.y.data(), 0xff, problem.y.size() * sizeof(T)));
          ebb::cuda::check(ebb::cuda::launch_sm90_attention(problem.arguments(with_workspace), nullptr));
          CHECK(problem.error(on_host(problem.y)) <= largest_error<T>);
        }
        CHECK(all_zero(problem.flags));
      }
}

/// Whether the Hopper kernel runs here. A build for sm_90a has it on Hopper; others say that they do not.
bool has_sm90_attention() {
  int major = 0;
  ebb::cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  const Problem<ebb::bfloat16> problem({1, 1, 128, 128, 128}, {}, 1);
  const cudaError_t status = ebb::cuda::launch_sm90_attention(problem.arguments(), nullptr);
  if (major == 9 && EBB_SM90A) CHECK(status == cudaSuccess);
  if (status == cudaErrorNotSupported) MESSAGE("skipped: no sm_90a code in this build, or no Hopper GPU");
  return status != cudaErrorNotSupported;
}

template <class T>
void check_portable(std::size_t head_dim, const Options& options, unsigned seed) {
  static constexpr std::array shapes{AttentionShape{2, 2, 0, 100, 131}, AttentionShape{1, 1, 0, 1, 1},
                                     AttentionShape{1, 3, 0, 257, 320}, AttentionShape{1, 1, 0, 40, 1000}};
  for (const AttentionShape& extents : ebb::testing::some_of(shapes)) {
    AttentionShape shape = extents;
    shape.head_dim = head_dim;
    CAPTURE(head_dim);
    CAPTURE(shape.query_tokens);
    CAPTURE(shape.key_tokens);
    // a head of one column makes few results, of values that nearly cancel
    const double bound = (head_dim == 1 ? 3.0 : 1.0) * largest_error<T>;
    Problem<T> problem(shape, options, seed += 10);
    if constexpr (sizeof(T) == 2) {
      const cudaError_t status = ebb::cuda::launch_portable_attention(problem.arguments(), nullptr);
      if (head_dim <= 256 || status != cudaErrorNotSupported) {  // some devices have too little shared memory
        ebb::cuda::check(status);
        CHECK(problem.error(on_host(problem.y)) <= bound);
        ebb::cuda::check(cudaMemset(problem.y.data(), 0xff, problem.y.size() * sizeof(T)));
      }
    }
    ebb::cuda::check(ebb::cuda::launch_plain_attention(problem.arguments(), nullptr));
    CHECK(problem.error(on_host(problem.y)) <= bound);
  }
}

template <class T>
void check_portable() {
  unsigned seed = 1000;
  for (const std::size_t head_dim : {1, 37, 40, 64, 96, 128, 160, 256, 300, 512})
    for (const AttentionMask mask : {AttentionMask::none, AttentionMask::causal})
      for (const bool bias : {false, true}) {
        const std::size_t padding = head_dim % 2 == 0 ? 8 : 3;
        check_portable<T>(head_dim, {.mask = mask, .bias = bias, .padding = padding, .shift = head_dim == 40 ? 1u : 0u},
                          seed += 100);
      }
}

}  // namespace

TEST_CASE("sm_90 attention agrees with double precision, whole tiles and divided ones") {
  if (!has_sm90_attention()) return;
  check_hopper<ebb::bfloat16>();
  check_hopper<ebb::float16>();
}

TEST_CASE("sm_90 attention at full size agrees with double precision on sampled rows and repeats bit by bit") {
  if (!has_sm90_attention()) return;
  for (const AttentionShape& shape : {AttentionShape{1, 24, 128, 4608, 4608}, AttentionShape{1, 5, 128, 1021, 1021},
                                      AttentionShape{1, 3, 128, 300, 300}, AttentionShape{2, 8, 128, 1500, 512}}) {
    CAPTURE(shape.query_tokens);
    const Problem<ebb::bfloat16> problem(shape, {}, 77);
    std::vector<ebb::bfloat16> first;
    int different = 0;
    for (std::size_t repeat = 0; repeat < ebb::testing::repeats(60); ++repeat) {
      ebb::cuda::check(cudaMemset(problem.y.data(), 0xff, problem.y.size() * sizeof(ebb::bfloat16)));
      ebb::cuda::check(ebb::cuda::launch_sm90_attention(problem.arguments(), nullptr));
      auto found = on_host(problem.y);
      if (repeat == 0)
        first = std::move(found);
      else
        different += !same_bits(first, found);
    }
    CHECK(different == 0);
    CHECK(problem.error(first, shape.query_tokens > 4000 ? 1009 : 17) <= largest_error<ebb::bfloat16>);
  }
}

TEST_CASE("attention replays in a CUDA graph") {
  const Problem<ebb::bfloat16> problem({1, 5, 128, 700, 700}, {}, 5);
  cudaStream_t stream = nullptr;
  ebb::cuda::check(cudaStreamCreate(&stream));
  ebb::cuda::check(ebb::cuda::launch_attention(problem.arguments(), stream));
  ebb::cuda::check(cudaStreamSynchronize(stream));
  const auto expected = on_host(problem.y);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ebb::cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  ebb::cuda::check(ebb::cuda::launch_attention(problem.arguments(), stream));
  ebb::cuda::check(cudaStreamEndCapture(stream, &graph));
  ebb::cuda::check(cudaGraphInstantiate(&executable, graph, 0));
  for (int replay = 0; replay < 20; ++replay) {
    ebb::cuda::check(cudaMemset(problem.y.data(), 0xff, problem.y.size() * sizeof(ebb::bfloat16)));
    ebb::cuda::check(cudaGraphLaunch(executable, stream));
    ebb::cuda::check(cudaStreamSynchronize(stream));
    CHECK(same_bits(on_host(problem.y), expected));
  }
  ebb::cuda::check(cudaGraphExecDestroy(executable));
  ebb::cuda::check(cudaGraphDestroy(graph));
  ebb::cuda::check(cudaStreamDestroy(stream));
}

TEST_CASE_TEMPLATE("portable and plain attention agree with double precision: any head dimension, masks, bias", T,
                   ebb::bfloat16, ebb::float16, float) {
  check_portable<T>();
}

TEST_CASE("portable attention repeats bit by bit") {
  const Problem<ebb::bfloat16> problem({1, 8, 64, 512, 512}, {.bias = true}, 3);
  std::vector<ebb::bfloat16> first;
  for (std::size_t repeat = 0; repeat < ebb::testing::repeats(50); ++repeat) {
    ebb::cuda::check(cudaMemset(problem.y.data(), 0xff, problem.y.size() * sizeof(ebb::bfloat16)));
    ebb::cuda::check(ebb::cuda::launch_portable_attention(problem.arguments(), nullptr));
    auto found = on_host(problem.y);
    if (repeat == 0) first = found;
    CHECK(same_bits(first, found));
  }
}

TEST_CASE("the dispatcher takes what some kernel takes, and says what none does") {
  const AttentionShape small{1, 2, 128, 50, 60};
  const Options unaligned{.padding = 1, .shift = 1};
  const Problem<ebb::float16> odd(small, unaligned, 8);
  CHECK_FALSE(ebb::cuda::fits_sm90_attention(odd.arguments()));
  CHECK(ebb::cuda::launch_sm90_attention(odd.arguments(), nullptr) == cudaErrorNotSupported);
  ebb::cuda::check(ebb::cuda::launch_attention(odd.arguments(), nullptr));
  CHECK(odd.error(on_host(odd.y)) <= largest_error<ebb::float16>);
  AttentionShape large = small;
  large.head_dim = 513;
  CHECK(ebb::cuda::launch_attention(Problem<float>(large, {}, 9).arguments(), nullptr) == cudaErrorNotSupported);
  CHECK(ebb::cuda::launch_portable_attention(Problem<ebb::bfloat16>(large, {}, 9).arguments(), nullptr) ==
        cudaErrorNotSupported);
  AttentionShape wide{1, 1, 64, 7, 6};
  CHECK(ebb::cuda::launch_attention(Problem<ebb::bfloat16>(wide, {.mask = AttentionMask::causal}, 9).arguments(),
                                    nullptr) == cudaErrorInvalidValue);
  AttentionArguments<ebb::bfloat16> nothing;
  nothing.shape = {1, 1, 128, 0, 5};
  CHECK(ebb::cuda::launch_attention(nothing, nullptr) == cudaSuccess);
}
