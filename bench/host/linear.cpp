// Linears on the host against Eigen's own float32 product on the dense weight, same shapes, same threads, same run.
// Prediction and results: bench/results/host_linear.md.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "ebb/host.hpp"
#include "ebb/tensor/format_choice.hpp"

namespace {

using ebb::FormatChoice;

std::vector<float> normal_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

struct Shapes {
  std::size_t m, n, k;
  explicit Shapes(const benchmark::State& state)
      : m(static_cast<std::size_t>(state.range(0))),
        n(static_cast<std::size_t>(state.range(1))),
        k(static_cast<std::size_t>(state.range(2))) {}
};

int threads() { return Eigen::nbThreads(); }

void finish(benchmark::State& state, const Shapes& shape) {
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(shape.m * shape.n * shape.k),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void eigen_dense(benchmark::State& state) {
  const Shapes shape(state);
  const auto x = normal_values(shape.m * shape.k, 1), w = normal_values(shape.n * shape.k, 2);
  std::vector<float> y(shape.m * shape.n);
  for (auto _ : state) {
    ebb::host::detail::multiply(x.data(), shape.k, w.data(), shape.k, y.data(), shape.n, shape.m, shape.n, shape.k);
    benchmark::DoNotOptimize(y.data());
  }
  finish(state, shape);
}

void linear(benchmark::State& state, FormatChoice::Kind kind, ebb::DoubleQuantization nested) {
  const Shapes shape(state);
  const auto x = normal_values(shape.m * shape.k, 1), w = normal_values(shape.n * shape.k, 2);
  ebb::AnyTensor weight;
  FormatChoice choice;
  choice.kind = kind;
  choice.block.nested = nested;
  if (kind == FormatChoice::Kind::dense)
    emplace_dense(weight, {shape.n, shape.k}, ebb::DType::bf16);
  else
    emplace(weight, {shape.n, shape.k}, choice);
  const ebb::AlignedBuffer segment(weight.bytes());
  quantize(std::span<const float>(w), weight, segment.bytes(), "weight");
  weight.bind(segment.data());
  std::vector<float> y(shape.m * shape.n);
  ebb::Workspace workspace;
  const ebb::host::Context<float> ctx(workspace, threads());
  for (auto _ : state) {
    ebb::host::linear(ctx, {x.data(), shape.m, shape.k}, weight, ebb::Identity{},
                      ebb::Matrix<float>(y.data(), shape.m, shape.n));
    benchmark::DoNotOptimize(y.data());
  }
  finish(state, shape);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"M", "N", "K"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const std::int64_t m : {1, 16, 512}) bench->Args({m, 3072, 3072});
}

constexpr auto off = ebb::DoubleQuantization::off;
constexpr auto on = ebb::DoubleQuantization::on;

}  // namespace

BENCHMARK(eigen_dense)->Apply(shapes);
BENCHMARK_CAPTURE(linear, bf16, FormatChoice::Kind::dense, off)->Apply(shapes);
BENCHMARK_CAPTURE(linear, nf4, FormatChoice::Kind::nf4, off)->Apply(shapes);
BENCHMARK_CAPTURE(linear, nf4_nested, FormatChoice::Kind::nf4, on)->Apply(shapes);
BENCHMARK_CAPTURE(linear, fp4, FormatChoice::Kind::fp4, off)->Apply(shapes);
BENCHMARK_CAPTURE(linear, fp8, FormatChoice::Kind::fp8, off)->Apply(shapes);
BENCHMARK_CAPTURE(linear, int8, FormatChoice::Kind::int8, off)->Apply(shapes);
BENCHMARK_MAIN();
