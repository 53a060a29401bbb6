#include "ebb/cuda/gemv.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "ebb/format/fp4.hpp"
#include "ebb/format/nf4.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/quantize.hpp"
#include "random.hpp"

namespace {

using ebb::DoubleQuantization;
using ebb::Matrix;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

/// A quantized weight on the device, and its values in double precision.
template <class Format>
struct Weight {
  ebb::QuantizedTensor<Format> tensor;
  std::vector<double> values;
  DeviceBuffer<std::byte> memory;

  Weight(std::size_t n, std::size_t k, std::size_t block, DoubleQuantization nested, unsigned seed)
      : tensor(ebb::Shape{n, k}, {.block_size = block, .nested = nested}), memory(tensor.bytes()) {
    const auto dense = random_values<float>(n * k, seed);
    ebb::AlignedBuffer segment(tensor.bytes());
    ebb::quantize(std::span<const float>(dense), tensor, segment.bytes(), "test");
    tensor.bind(segment.data());
    std::vector<float> back(n * k);
    ebb::dequantize(tensor, 0, std::span(back));
    values.assign(back.begin(), back.end());
    memory.upload(segment.bytes());
    tensor.bind(memory.data());
  }
};

template <class Format, class T>
void check_gemv(const Weight<Format>& weight, std::size_t n, std::size_t k, std::size_t m, std::size_t padding,
                unsigned seed) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  const std::size_t stride = k + padding;
  const auto x = random_values<T>(m * stride, seed);
  const auto bias = random_values<float>(n, seed + 1);
  const auto device_x = on_device(x);
  const auto device_bias = on_device(bias);
  std::vector<double> expected;
  double energy = 0.0;  // of the sums' terms: what results amount to where the terms do not happen to cancel
  for (std::size_t token = 0; token < m; ++token)
    for (std::size_t row = 0; row < n; ++row) {
      double sum = 0.0;
      for (std::size_t i = 0; i < k; ++i) {
        const double term = static_cast<double>(static_cast<float>(x[token * stride + i])) * weight.values[row * k + i];
        sum += term;
        energy += term * term;
      }
      expected.push_back(sum + static_cast<double>(bias[row]));
    }
  double norm = 0.0;
  for (const double value : expected) norm += value * value;
  const double bound = largest_error<T> * std::max(1.0, std::sqrt(energy / norm));
  const Matrix<T> input(device_x.data(), m, k, stride);
  const auto tensor = ebb::cuda::blockwise_tensor(weight.tensor);
  std::vector<T> first;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto y = poisoned<T>(m * n);
    check(ebb::cuda::launch_gemv<Format>(input, tensor, ebb::Bias{device_bias.data()}, Matrix<T>(y.data(), m, n),
                                         nullptr));
    const auto found = on_host(y);
    if (repeat == 0) first = found;
    CHECK(std::memcmp(first.data(), found.data(), found.size() * sizeof(T)) == 0);
  }
  CHECK(relative_error(first, expected) <= bound);
  const auto y = poisoned<T>(m * n);
  check(ebb::cuda::launch_exact_gemv<Format>(input, tensor, ebb::Bias{device_bias.data()}, Matrix<T>(y.data(), m, n),
                                             nullptr));
  CHECK(relative_error(on_host(y), expected) <= bound);
}

template <class Format>
void check_format() {
  unsigned seed = 1;
  struct Extents {
    std::size_t n, k;
  };
  for (const Extents& e : {Extents{1, 128}, Extents{16, 128}, Extents{17, 640}, Extents{100, 1024}, Extents{3072, 192},
                           Extents{333, 3072}, Extents{5000, 128}, Extents{4300, 256}})
    for (const auto nested : {DoubleQuantization::off, DoubleQuantization::on}) {
      const Weight<Format> weight(e.n, e.k, 64, nested, ++seed);
      for (const std::size_t m : {1, 2, 7, 8, 9, 16, 17}) {
        check_gemv<Format, ebb::bfloat16>(weight, e.n, e.k, m, 0, ++seed);
        check_gemv<Format, ebb::float16>(weight, e.n, e.k, m, 8, ++seed);
        if (m < 3) check_gemv<Format, float>(weight, e.n, e.k, m, 1, ++seed);
      }
    }
}

}  // namespace

TEST_CASE("products with NF4 weights agree with double precision") { check_format<ebb::NF4>(); }
TEST_CASE("products with FP4 weights agree with double precision") { check_format<ebb::FP4>(); }

TEST_CASE("weights that no tensor-core kernel takes are multiplied exactly") {
  for (const std::size_t block : {32, 128, 64}) {
    const Weight<ebb::NF4> weight(37, 99, block, DoubleQuantization::off, 7);
    for (const std::size_t m : {1, 5}) {
      check_gemv<ebb::NF4, ebb::bfloat16>(weight, 37, 99, m, 0, 8);
      check_gemv<ebb::NF4, float>(weight, 37, 99, m, 0, 8);
    }
  }
}

TEST_CASE("products refuse extents that do not fit together") {
  const Weight<ebb::NF4> weight(4, 64, 64, DoubleQuantization::off, 7);
  const DeviceBuffer<ebb::bfloat16> memory(1024);
  const auto tensor = ebb::cuda::blockwise_tensor(weight.tensor);
  CHECK(ebb::cuda::launch_gemv<ebb::NF4>(Matrix<ebb::bfloat16>(memory.data(), 1, 64), tensor, ebb::Identity{},
                                         Matrix<ebb::bfloat16>(memory.data() + 512, 1, 5),
                                         nullptr) == cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_gemv<ebb::NF4>(Matrix<ebb::bfloat16>(memory.data(), 2, 64), tensor, ebb::Identity{},
                                         Matrix<ebb::bfloat16>(memory.data() + 512, 1, 4),
                                         nullptr) == cudaErrorInvalidValue);
}
