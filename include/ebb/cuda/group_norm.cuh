#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/vector.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int group_norm_threads = 256;
inline constexpr std::size_t group_norm_chunk = 256;        // pixels of a thread block, at least
inline constexpr std::size_t group_norm_most_chunks = 512;  // of one item

struct GroupNormExtents {
  std::size_t pixels;  // of one item
  std::size_t channels;
  std::size_t chunks;  // of one item
  std::size_t chunk_pixels;
};

inline GroupNormExtents group_norm_extents(std::size_t pixels, std::size_t channels) {
  const std::size_t wanted = (pixels + group_norm_chunk - 1) / group_norm_chunk;
  const std::size_t limited = std::clamp<std::size_t>(wanted, 1, group_norm_most_chunks);
  const std::size_t chunk_pixels = (pixels + limited - 1) / limited;
  return {pixels, channels, (pixels + chunk_pixels - 1) / chunk_pixels, chunk_pixels};
}

/// Mean and squared deviations of each channel over one chunk of pixels. The sums are taken relative to the chunk's
/// first pixel, so that a large mean costs no digits.
template <int width, class T>
__global__ void __launch_bounds__(group_norm_threads, 3)
    group_norm_chunk_kernel(const T* __restrict__ x, GroupNormExtents extents, float2* __restrict__ statistics) {
  __shared__ float sums[group_norm_threads][width];
  __shared__ float squares[group_norm_threads][width];
  const std::size_t begin = blockIdx.x * extents.chunk_pixels;
  const std::size_t end = min(begin + extents.chunk_pixels, extents.pixels);
  const T* item = x + blockIdx.y * extents.pixels * extents.channels;
  float2* out = statistics + (blockIdx.y * extents.chunks + blockIdx.x) * extents.channels;
  const auto packs = static_cast<unsigned>(extents.channels / width);
  const unsigned lanes = min(packs, static_cast<unsigned>(group_norm_threads));  // threads across the channels
  const unsigned rows = group_norm_threads / lanes;                              // pixels at a time
  const unsigned lane = threadIdx.x % lanes;
  const unsigned row = threadIdx.x / lanes;
  for (unsigned first = 0; first < packs; first += lanes) {
    const std::size_t channel = std::size_t{first + lane} * width;
    const bool here = first + lane < packs && row < rows;
    float base[width], sum[width] = {}, square[width] = {};
    if (here) {
      load_floats(base, item + begin * extents.channels + channel);
      for (std::size_t pixel = begin + row; pixel < end; pixel += rows) {
        float values[width];
        load_floats(values, item + pixel * extents.channels + channel);
#pragma unroll
        for (int i = 0; i < width; ++i) {
          const float difference = values[i] - base[i];
          sum[i] += difference;
          square[i] += difference * difference;
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < width; ++i) {
      sums[threadIdx.x][i] = sum[i];
      squares[threadIdx.x][i] = square[i];
    }
    __syncthreads();
    if (here && row == 0) {
      const auto count = static_cast<float>(end - begin);
#pragma unroll
      for (int i = 0; i < width; ++i) {
        for (unsigned other = 1; other < rows; ++other) {
          sum[i] += sums[other * lanes + lane][i];
          square[i] += squares[other * lanes + lane][i];
        }
        const float mean = sum[i] / count;
        out[channel + i] = {base[i] + mean, fmaxf(square[i] - sum[i] * mean, 0.0f)};
      }
    }
  }
}

/// Merges a group's chunks and channels in double precision, into mean and 1 / deviation. One warp a group and item.
template <class = void>  // a template, so that several translation units may have it
__global__ void __launch_bounds__(32)
    group_norm_merge_kernel(const float2* __restrict__ statistics, GroupNormExtents extents, std::size_t group_width,
                            float epsilon, float2* __restrict__ groups) {
  const float2* item = statistics + blockIdx.y * extents.chunks * extents.channels + blockIdx.x * group_width;
  const auto pixels_of = [&](std::size_t chunk) {
    return static_cast<double>(min(extents.chunk_pixels, extents.pixels - chunk * extents.chunk_pixels));
  };
  const auto total = [&](auto term) {
    double sum = 0.0;
    for (std::size_t i = threadIdx.x; i < extents.chunks * group_width; i += 32) {
      const std::size_t chunk = i / group_width;
      sum += term(item[chunk * extents.channels + i % group_width], pixels_of(chunk));
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    return sum;
  };
  const double count = static_cast<double>(extents.pixels) * static_cast<double>(group_width);
  const double mean = total([](float2 part, double pixels) { return static_cast<double>(part.x) * pixels; }) / count;
  const double squares = total([mean](float2 part, double pixels) {
    const double difference = static_cast<double>(part.x) - mean;
    return static_cast<double>(part.y) + difference * difference * pixels;
  });
  if (threadIdx.x == 0)
    groups[blockIdx.y * gridDim.x + blockIdx.x] = {
        static_cast<float>(mean), static_cast<float>(1.0 / sqrt(squares / count + static_cast<double>(epsilon)))};
}

template <int width, class T, class Activation>
__global__ void __launch_bounds__(group_norm_threads)
    group_norm_apply_kernel(const T* x, GroupNormExtents extents, unsigned group_width, unsigned groups,
                            const float2* __restrict__ statistics, const float* __restrict__ gamma,
                            const float* __restrict__ beta, Activation activation, T* y) {
  const std::size_t item = blockIdx.y * extents.pixels * extents.channels;
  const std::size_t packs = extents.pixels * (extents.channels / width);
  const auto packs_of_pixel = static_cast<unsigned>(extents.channels / width);
  for (std::size_t pack = std::size_t{blockIdx.x} * group_norm_threads + threadIdx.x; pack < packs;
       pack += std::size_t{gridDim.x} * group_norm_threads) {
    const auto channel = static_cast<unsigned>(pack % packs_of_pixel) * width;
    float values[width];
    load_floats(values, x + item + pack * width);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float2 group = __ldg(statistics + blockIdx.y * groups + (channel + i) / group_width);
      values[i] = (values[i] - group.x) * group.y * __ldg(gamma + channel + i) + __ldg(beta + channel + i);
      values[i] = activation(values[i], 0, channel + i);
    }
    store_floats(y + item + pack * width, values);
  }
}

}  // namespace detail

/// Bytes of `workspace` for `launch_group_norm`.
inline std::size_t group_norm_workspace_bytes(std::size_t batch, std::size_t pixels, std::size_t channels,
                                              std::size_t groups) {
  return batch * (detail::group_norm_extents(pixels, channels).chunks * channels + groups) * sizeof(float2);
}

/// GroupNorm of NHWC images with an activation behind it (`Identity` or `Silu`, which see neither row nor neighbour):
/// mean and biased variance over a group's pixels and channels; see ops/norm.hpp. y may be x. Reads x twice.
///
/// @param gamma     [channels], `beta` [channels], on the device
/// @param workspace `group_norm_workspace_bytes`, aligned to 8 bytes; contents do not matter
template <Element T, Epilogue Activation>
cudaError_t launch_group_norm(std::type_identity_t<Image<const T>> x, std::size_t groups, const float* gamma,
                              const float* beta, float epsilon, Activation activation, Image<T> y, void* workspace,
                              cudaStream_t stream) noexcept {
  if (x.size() == 0) return cudaSuccess;
  constexpr std::size_t limit = std::size_t{1} << 30;
  if (groups == 0 || x.channels % groups != 0 || x.batch > 65535 || x.channels >= limit) return cudaErrorInvalidValue;
  const detail::GroupNormExtents extents = detail::group_norm_extents(x.height * x.width, x.channels);
  auto* statistics = static_cast<float2*>(workspace);
  float2* merged = statistics + x.batch * extents.chunks * x.channels;
  const std::size_t group_width = x.channels / groups;
  const auto items = static_cast<unsigned>(x.batch);
  const auto run = [&](auto width_constant) {
    constexpr int width = decltype(width_constant)::value;
    const std::size_t packs = extents.pixels * (x.channels / width);
    const auto blocks = static_cast<unsigned>(
        std::min<std::size_t>((packs + detail::group_norm_threads - 1) / detail::group_norm_threads, 1u << 16));
    detail::group_norm_chunk_kernel<width>
        <<<dim3(static_cast<unsigned>(extents.chunks), items), detail::group_norm_threads, 0, stream>>>(x.data, extents,
                                                                                                        statistics);
    detail::group_norm_merge_kernel<><<<dim3(static_cast<unsigned>(groups), items), 32, 0, stream>>>(
        statistics, extents, group_width, epsilon, merged);
    detail::group_norm_apply_kernel<width><<<dim3(blocks, items), detail::group_norm_threads, 0, stream>>>(
        x.data, extents, static_cast<unsigned>(group_width), static_cast<unsigned>(groups), merged, gamma, beta,
        activation, y.data);
  };
  if (vectorizable(x.pixels(), y.pixels()))
    run(std::integral_constant<int, vector_width<T>>{});
  else
    run(std::integral_constant<int, 1>{});
  return cudaGetLastError();
}

}  // namespace ebb::cuda
