#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/gemm.cuh"
#include "ebb/cuda/vector.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

/// A thread's way along the taps and channels around some pixels, `copied_rows` apart; see `MatrixCursor`. Taps of one
/// line are neighbours in memory, as their channels are, so that one address and one step serve all.
template <class T, int count>
struct PixelCursor {
  const T* from;             // the current tap's channel, for the first pixel
  std::size_t step;          // elements from a pixel to the next one
  std::ptrdiff_t gap;        // elements from the end of a line of taps to the next line
  std::ptrdiff_t frame_gap;  // elements from there to the first line of taps of the next frame, behind a frame's last
  int channels, width, height, depth;
  int pad;  // of the kernel; taps go from -pad to pad
  int channel, tap_x, tap_y, tap_frame;
  short2 places[count];  // column and line of each pixel

  __device__ bool holds(int i) const {
    return tap_frame < depth && static_cast<unsigned>(places[i].x + tap_x) < static_cast<unsigned>(width) &&
           static_cast<unsigned>(places[i].y + tap_y) < static_cast<unsigned>(height);
  }
  __device__ const T* at(int i) const { return from + static_cast<std::size_t>(i) * step; }
  __device__ void advance(int by) {
    from += by;
    channel += by;
    while (channel >= channels && tap_frame < depth) {
      channel -= channels;
      if (++tap_x > pad) {
        tap_x = -pad;
        from += gap;
        if (++tap_y > pad) {
          tap_y = -pad;
          from += frame_gap;
          ++tap_frame;
        }
      }
    }
  }
};

/// The pixels of x, but for the last `depth - 1` frames, as an operand [pixels, depth * kernel * kernel * channels]
/// that exists nowhere in memory.
template <class T>
struct PixelOperand {
  const T* data;
  int pixels, width, height, channels, depth, pad;
  std::size_t step;
  std::ptrdiff_t gap, frame_gap;
  PixelOperand(const Image<const T>& x, int frames, int padding)
      : data(x.data),
        pixels(static_cast<int>((x.batch - static_cast<std::size_t>(frames) + 1) * x.height * x.width)),
        width(static_cast<int>(x.width)),
        height(static_cast<int>(x.height)),
        channels(static_cast<int>(x.channels)),
        depth(frames),
        pad(padding),
        step(copied_rows * x.channels),
        gap(static_cast<std::ptrdiff_t>(channels) * (width - 2 * pad - 1)),
        frame_gap(static_cast<std::ptrdiff_t>(channels) * width * (height - 2 * pad - 1)) {}
  __device__ const T* base() const { return data; }
  template <int count>
  __device__ PixelCursor<T, count> cursor(int row, int column) const {
    const auto first = static_cast<std::ptrdiff_t>(row) - static_cast<std::ptrdiff_t>(pad) * (width + 1);
    PixelCursor<T, count> result{
        data + first * channels, step, gap, frame_gap, channels, width, height, depth, pad, 0, -pad, -pad, 0, {}};
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int pixel = row + copied_rows * i;
      const int line = pixel / width;
      // Beyond the last pixel lies a line that no tap moves into the picture.
      result.places[i] = make_short2(static_cast<short>(pixel - line * width),
                                     pixel < pixels ? static_cast<short>(line % height) : short{-32768});
    }
    result.advance(column);
    return result;
  }
};

}  // namespace detail

/// Convolution over frames, rows and columns with stride 1: zero padding keeps the size of a frame, and there are as
/// many frames of y as the filter has places along x; see ops/conv.hpp. A product of the pixels' taps with the filter,
/// summed in float32 and rounded once, with the kernels and the properties of `launch_gemm`; the row of the epilogue is
/// the pixel of y, the column the output channel. 16-bit T is fastest where channels are a multiple of eight.
///
/// @param x      [frames + depth - 1, h, w, inputs], `y` [frames, h, w, outputs], h and w below 2^15; y does not
/// overlap x
/// @param filter [outputs, depth, kernel, kernel, inputs], kernel odd, on the device
template <Element T, Epilogue Stage>
cudaError_t launch_conv3d(std::type_identity_t<Image<const T>> x, const T* filter, std::size_t depth,
                          std::size_t kernel, const Stage& epilogue, Image<T> y, cudaStream_t stream) noexcept {
  constexpr std::size_t limit = std::size_t{1} << 15, most_pixels = std::size_t{1} << 31;
  if (kernel % 2 == 0 || depth == 0 || x.height != y.height || x.width != y.width) return cudaErrorInvalidValue;
  if (depth >= limit || x.batch != y.batch + depth - 1) return cudaErrorInvalidValue;
  if (y.size() == 0) return cudaSuccess;
  if (x.height >= limit || x.width >= limit || kernel >= limit || x.batch * x.height * x.width >= most_pixels ||
      x.channels >= most_pixels)
    return cudaErrorInvalidValue;
  const Matrix<const T> weight(filter, y.channels, depth * kernel * kernel * x.channels);
  return detail::launch_product(detail::PixelOperand<T>(x, static_cast<int>(depth), static_cast<int>(kernel / 2)),
                                weight, vectorizable(x.pixels(), weight), epilogue, y.pixels(), stream);
}

/// Convolution of single pictures with stride 1 and zero padding that keeps the size: `launch_conv3d` with depth 1.
///
/// @param x      [n, h, w, inputs], `y` [n, h, w, outputs]
/// @param filter [outputs, kernel, kernel, inputs], kernel odd, on the device
template <Element T, Epilogue Stage>
cudaError_t launch_conv2d(std::type_identity_t<Image<const T>> x, const T* filter, std::size_t kernel,
                          const Stage& epilogue, Image<T> y, cudaStream_t stream) noexcept {
  return launch_conv3d(x, filter, 1, kernel, epilogue, y, stream);
}

}  // namespace ebb::cuda
