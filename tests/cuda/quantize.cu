#include "ebb/cuda/quantize.cuh"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/ops.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/format/fp4.hpp"
#include "ebb/format/nf4.hpp"
#include "ebb/host/quantize.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantize.hpp"

namespace {

using ebb::cuda::DeviceBuffer;

/// Normal values with every kind of trouble mixed in: zero blocks, ties, neighbours of thresholds, subnormals.
template <class Format>
std::vector<float> hard_values(std::size_t count, std::size_t block, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (std::size_t begin = 0; begin < count; begin += block) {
    const unsigned kind = random() % 5;
    for (std::size_t i = begin; i < std::min(begin + block, count); ++i) {
      values[i] = normal(random);
      if (kind == 0) values[i] = 0.0f;
      if (kind == 1) values[i] = i == begin ? 1.0f : Format::values[random() % 16] * 0.999f;
      if (kind == 2) values[i] *= 1e-42f;
      if (kind == 3 && i != begin) {
        float threshold = 0.5f * (Format::values[random() % 16] + Format::values[random() % 16]);
        const float towards = random() % 2 ? 2.0f : -2.0f;
        for (unsigned step = random() % 3; step > 0; --step) threshold = std::nextafter(threshold, towards);
        values[i] = threshold;
      } else if (kind == 3) {
        values[i] = 1.0f;
      }
    }
  }
  return values;
}

template <class T>
std::vector<T> converted(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) result[i] = static_cast<T>(values[i]);
  return result;
}

template <class T>
bool same_bytes(const T* a, const T* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

template <class T>
void require_same(const DeviceBuffer<T>& found, std::span<const T> expected) {
  std::vector<T> copied(found.size());
  found.download(copied);
  REQUIRE(copied.size() == expected.size());
  REQUIRE(same_bytes(copied.data(), expected.data(), copied.size()));
}

/// Host quantization is the oracle: codes and scales, then the values that both sides make of them.
template <class Format, class T, class Out>
void check_blockwise(std::size_t elements, std::size_t block, ebb::DoubleQuantization nested, unsigned seed) {
  CAPTURE(elements);
  CAPTURE(block);
  const auto values = converted<T>(hard_values<Format>(elements, block, seed));
  ebb::QuantizedTensor<Format> tensor(ebb::Shape{elements}, {.block_size = block, .nested = nested});
  ebb::AlignedBuffer segment(tensor.bytes());
  ebb::quantize(std::span<const T>(values), tensor, segment.bytes(), "test");
  tensor.bind(segment.data());
  DeviceBuffer<T> device_values(elements);
  device_values.upload(values);
  DeviceBuffer<std::uint8_t> codes(tensor.codes().size());
  DeviceBuffer<float> scales(tensor.groups());
  DeviceBuffer<unsigned long long> bad(1);
  bad.upload(std::vector{ebb::cuda::all_finite});
  ebb::cuda::check(ebb::cuda::launch_quantize<Format>(device_values.data(), elements,
                                                      static_cast<unsigned>(std::countr_zero(block)), codes.data(),
                                                      scales.data(), bad.data(), nullptr));
  require_same(codes, tensor.codes());
  require_same(bad, std::span<const unsigned long long>(&ebb::cuda::all_finite, 1));
  if (nested == ebb::DoubleQuantization::off) {
    require_same(scales, tensor.scales());
  } else {
    DeviceBuffer<std::uint8_t> scale_codes(tensor.groups());
    DeviceBuffer<float> map(ebb::nested_map_size), nested_scales(tensor.nested_scales().size()), mean(1);
    ebb::cuda::check(ebb::cuda::launch_quantize_scales(scales.data(), scales.size(), scale_codes.data(), map.data(),
                                                       nested_scales.data(), mean.data(), nullptr));
    require_same(mean, std::span<const float>(tensor.nested_offset(), 1));
    require_same(map, tensor.nested_map());
    require_same(nested_scales, tensor.nested_scales());
    require_same(scale_codes, tensor.scale_codes());
  }
  std::vector<Out> expected(elements);
  ebb::dequantize(tensor, 0, std::span(expected));
  DeviceBuffer<std::byte> device_segment(tensor.bytes());
  device_segment.upload(segment.bytes());
  tensor.bind(device_segment.data());
  DeviceBuffer<Out> out(elements);
  ebb::cuda::check(cudaMemset(out.data(), 0xff, elements * sizeof(Out)));
  ebb::cuda::check(ebb::cuda::launch_dequantize<Format>(ebb::cuda::blockwise_tensor(tensor), out.data(), nullptr));
  std::vector<Out> found(elements);
  out.download(found);
  REQUIRE(same_bytes(found.data(), expected.data(), elements));
}

template <class Format, class T>
void check_rowwise(std::size_t rows, std::size_t columns, unsigned seed) {
  CAPTURE(rows);
  CAPTURE(columns);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(rows * columns);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] =
        static_cast<T>(i / columns % 7 == 3 ? 0.0f : normal(random) * std::ldexp(1.0f, int(i / columns % 13) - 6));
  ebb::QuantizedTensor<Format> tensor(ebb::Shape{rows, columns});
  ebb::AlignedBuffer segment(tensor.bytes());
  ebb::quantize(std::span<const T>(values), tensor, segment.bytes(), "test");
  tensor.bind(segment.data());
  using Code = typename Format::Code;
  DeviceBuffer<T> device_values(values.size());
  device_values.upload(values);
  DeviceBuffer<Code> codes(values.size());
  DeviceBuffer<float> scales(rows);
  DeviceBuffer<unsigned long long> bad(1);
  bad.upload(std::vector{ebb::cuda::all_finite});
  ebb::cuda::check(ebb::cuda::launch_quantize<Format>(device_values.data(), rows, columns, codes.data(), scales.data(),
                                                      bad.data(), nullptr));
  std::vector<Code> found(values.size());
  codes.download(found);
  REQUIRE(same_bytes(found.data(), tensor.codes().data(), found.size()));
  std::vector<float> found_scales(rows);
  scales.download(found_scales);
  REQUIRE(same_bytes(found_scales.data(), tensor.scales().data(), rows));
  std::vector<T> expected(values.size()), back(values.size());
  ebb::dequantize(tensor, 0, std::span(expected));
  DeviceBuffer<T> out(values.size());
  ebb::cuda::check(
      ebb::cuda::launch_dequantize<Format>(codes.data(), scales.data(), rows, columns, out.data(), nullptr));
  out.download(back);
  REQUIRE(same_bytes(back.data(), expected.data(), back.size()));
}

const std::size_t odd_sizes[] = {1, 2, 7, 31, 64, 65, 1000, 4095, 4097, 70001, 3 * 4096 * 5};

/// The GPU, for all cases.
ebb::cuda::Engine& gpu() {
  static const ebb::cuda::Device device = ebb::cuda::Device::open(0);
  static ebb::cuda::Engine engine(device, ebb::cuda::attention_workspace(device));
  return engine;
}

/// The operations on both contexts: whole segments, padding included, then the values that they hold.
template <ebb::QuantFormat Format, class T>
void check_operations(const ebb::Shape& shape, const typename Format::Options& options, unsigned seed) {
  CAPTURE(Format::name);
  CAPTURE(shape.text());
  const ebb::cuda::Context<T> ctx(gpu());
  ebb::Workspace workspace;
  const ebb::host::Context<T> host(workspace, 1);
  const auto values = converted<T>(hard_values<ebb::NF4>(shape.elements(), 64, seed));
  ebb::QuantizedTensor<Format> tensor(shape, options);
  const ebb::AlignedBuffer segment(tensor.bytes());
  quantize(host, values, tensor, segment.bytes(), "test");

  DeviceBuffer<T> device_values(values.size());
  device_values.upload(values);
  const DeviceBuffer<std::byte> device_segment(tensor.bytes());
  if (tensor.bytes() != 0) ebb::cuda::check(cudaMemset(device_segment.data(), 0xff, tensor.bytes()));
  ebb::cuda::check(cudaDeviceSynchronize());  // the context's stream does not wait for the one of the memset
  quantize(ctx, std::span<const T>(device_values.data(), values.size()), tensor, device_segment.bytes(), "test");
  ebb::cuda::check(cudaStreamSynchronize(ctx.stream()));
  require_same(device_segment, std::span<const std::byte>(segment.bytes()));

  const ebb::AlignedBuffer memory(values.size() * sizeof(T));
  const std::span<T> expected(reinterpret_cast<T*>(memory.data()), values.size());
  tensor.bind(segment.data());
  dequantize(host, tensor, expected);
  tensor.bind(device_segment.data());
  const DeviceBuffer<T> out(values.size());
  dequantize(ctx, tensor, std::span<T>(out.data(), out.size()));
  ebb::cuda::check(cudaStreamSynchronize(ctx.stream()));
  require_same(out, std::span<const T>(expected));
}

template <class Format>
void check_format() {
  unsigned seed = 1;
  for (const std::size_t elements : odd_sizes)
    for (std::size_t block = 32; block <= 4096; block *= 2)
      for (const auto nested : {ebb::DoubleQuantization::off, ebb::DoubleQuantization::on}) {
        check_blockwise<Format, float, ebb::bfloat16>(elements, block, nested, ++seed);
        check_blockwise<Format, ebb::bfloat16, float>(elements, block, nested, ++seed);
        check_blockwise<Format, ebb::float16, ebb::float16>(elements, block, nested, ++seed);
      }
}

}  // namespace

TEST_CASE("NF4 on the device equals NF4 on the host, byte for byte") { check_format<ebb::NF4>(); }
TEST_CASE("FP4 on the device equals FP4 on the host, byte for byte") { check_format<ebb::FP4>(); }

TEST_CASE("row-wise formats on the device equal those on the host") {
  unsigned seed = 100;
  for (const std::size_t rows : {1, 3, 130})
    for (const std::size_t columns : {1, 5, 8, 255, 256, 1025, 4104}) {
      check_rowwise<ebb::INT8, float>(rows, columns, ++seed);
      check_rowwise<ebb::INT8, ebb::bfloat16>(rows, columns, ++seed);
      check_rowwise<ebb::FP8, float>(rows, columns, ++seed);
      check_rowwise<ebb::FP8, ebb::bfloat16>(rows, columns, ++seed);
    }
}

TEST_CASE_TEMPLATE("quantize and dequantize on both contexts make the same bytes", T, float, ebb::bfloat16,
                   ebb::float16) {
  unsigned seed = 200;
  for (const ebb::Shape& shape : {ebb::Shape{1}, ebb::Shape{0, 64}, ebb::Shape{3, 7}, ebb::Shape{33, 64},
                                  ebb::Shape{5, 4099}, ebb::Shape{300, 1024}}) {
    for (const std::size_t block : {64, 4096})
      for (const auto nested : {ebb::DoubleQuantization::off, ebb::DoubleQuantization::on}) {
        check_operations<ebb::NF4, T>(shape, {.block_size = block, .nested = nested}, ++seed);
        check_operations<ebb::FP4, T>(shape, {.block_size = block, .nested = nested}, ++seed);
      }
    check_operations<ebb::INT8, T>(shape, {}, ++seed);
    check_operations<ebb::FP8, T>(shape, {}, ++seed);
    check_operations<ebb::F32, T>(shape, {}, ++seed);
    check_operations<ebb::BF16, T>(shape, {}, ++seed);
  }
}

TEST_CASE("launches refuse extents that no grid holds, and blocks smaller than a load") {
  constexpr std::size_t many = std::size_t{1} << 31;
  CHECK(ebb::cuda::launch_quantize<ebb::INT8>(static_cast<const float*>(nullptr), many, 1, nullptr, nullptr, nullptr,
                                              nullptr) == cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_dequantize<ebb::INT8>(nullptr, nullptr, many, 1, static_cast<float*>(nullptr), nullptr) ==
        cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_dequantize<ebb::NF4>({.elements = 64, .block_shift = 2}, static_cast<float*>(nullptr),
                                               nullptr) == cudaErrorInvalidValue);
}

TEST_CASE("quantize and dequantize refuse what does not fit, and what no format holds") {
  const ebb::cuda::Context<float> ctx(gpu());
  std::vector<float> numbers(128, 0.5f);
  numbers[77] = std::numeric_limits<float>::infinity();
  DeviceBuffer<float> memory(numbers.size());
  memory.upload(numbers);
  const std::span<float> values(memory.data(), memory.size());
  ebb::AnyTensor tensor;
  ebb::FormatChoice choice;
  choice.kind = ebb::FormatChoice::Kind::nf4;
  emplace(tensor, {2, 64}, choice);
  const DeviceBuffer<std::byte> segment(tensor.bytes());
  CHECK_THROWS_WITH_AS(quantize(ctx, values, tensor, segment.bytes(), "weight"),
                       "tensor 'weight': element 77 is inf, which nf4 cannot hold: expected finite numbers; check the "
                       "checkpoint or exclude the tensor from quantization",
                       ebb::ValueError);
  CHECK_THROWS_AS(quantize(ctx, values.first(127), tensor, segment.bytes(), "weight"), ebb::ShapeError);
  CHECK_THROWS_AS(quantize(ctx, values, tensor, segment.bytes().first(255), "weight"), ebb::ShapeError);
  CHECK_THROWS_AS(quantize(ctx, values, tensor, segment.bytes().subspan(16), "weight"), ebb::ShapeError);
  CHECK_THROWS_AS(dequantize(ctx, tensor, values), ebb::MemoryError);
  tensor.bind(segment.data());
  CHECK_THROWS_AS(dequantize(ctx, tensor, values.first(127)), ebb::ShapeError);
}

TEST_CASE("the first NaN or infinity is found") {
  std::vector<float> values(10000, 0.5f);
  values[7001] = std::numeric_limits<float>::infinity();
  values[7000] = std::nanf("");
  DeviceBuffer<float> device_values(values.size());
  device_values.upload(values);
  DeviceBuffer<std::uint8_t> codes(values.size());
  DeviceBuffer<float> scales(values.size());
  DeviceBuffer<unsigned long long> bad(1);
  for (int format = 0; format < 2; ++format) {
    bad.upload(std::vector{ebb::cuda::all_finite});
    if (format == 0)
      ebb::cuda::check(ebb::cuda::launch_quantize<ebb::NF4>(device_values.data(), values.size(), 6u, codes.data(),
                                                            scales.data(), bad.data(), nullptr));
    else
      ebb::cuda::check(ebb::cuda::launch_quantize<ebb::FP8>(device_values.data(), std::size_t{100}, std::size_t{100},
                                                            codes.data(), scales.data(), bad.data(), nullptr));
    std::vector<unsigned long long> found(1);
    bad.download(found);
    CHECK(found[0] == 7000);
  }
}

TEST_CASE("errors of the runtime become exceptions with advice") {
  CHECK_THROWS_WITH_AS(ebb::cuda::check(cudaErrorNoDevice), doctest::Contains("--device host"), ebb::cuda::CudaError);
  CHECK_THROWS_WITH_AS(DeviceBuffer<std::byte>(std::size_t{1} << 50), doctest::Contains("are free"),
                       ebb::cuda::CudaError);
}
