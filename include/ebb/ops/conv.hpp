#pragma once

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Contract of conv2d(ctx, x, filter, epilogue, y): stride 1, zero padding that keeps the size, odd kernels.
///   x [n, h, w, inputs], y [n, h, w, outputs], filter [outputs, kernel, kernel, inputs]; row of the epilogue = pixel
/// y must not overlap x. @throws ShapeError
template <class X, class Y>
void check_conv2d(const X& x, const Shape& filter, const Y& y) {
  if (filter.rank() != 4 || filter[1] != filter[2] || filter[1] % 2 == 0 || filter[3] != x.channels ||
      filter[0] != y.channels || x.batch != y.batch || x.height != y.height || x.width != y.width)
    throw ShapeError(
        concat("conv2d: expected x [n, h, w, i], filter [o, k, k, i] with odd k, y [n, h, w, o], found x [", x.batch,
               ", ", x.height, ", ", x.width, ", ", x.channels, "], filter ", filter.text(), ", y [", y.batch, ", ",
               y.height, ", ", y.width, ", ", y.channels, "]"));
}

/// Contract of conv3d(ctx, x, filter, epilogue, y): a convolution over frames, rows and columns, stride 1, of one video
/// whose frames take the place of the batch. Zero padding keeps the size of a frame; along time there is none: whoever
/// wants a causal convolution puts depth - 1 frames of history before the first.
///   x [frames + depth - 1, h, w, inputs], y [frames, h, w, outputs], filter [outputs, depth, kernel, kernel, inputs]
///   with odd kernel; row of the epilogue = pixel of y
/// y must not overlap x. @throws ShapeError
template <class X, class Y>
void check_conv3d(const X& x, const Shape& filter, const Y& y) {
  if (filter.rank() != 5 || filter[2] != filter[3] || filter[2] % 2 == 0 || filter[1] == 0 || filter[4] != x.channels ||
      filter[0] != y.channels || x.batch + 1 != y.batch + filter[1] || x.height != y.height || x.width != y.width)
    throw ShapeError(
        concat("conv3d: expected x [f + d - 1, h, w, i], filter [o, d, k, k, i] with odd k, y [f, h, w, o], ",
               "found x [", x.batch, ", ", x.height, ", ", x.width, ", ", x.channels, "], filter ", filter.text(),
               ", y [", y.batch, ", ", y.height, ", ", y.width, ", ", y.channels, "]"));
}

/// Contract of upsample_nearest(ctx, x, y): y [n, 2h, 2w, c] repeats each pixel of x [n, h, w, c] four times.
/// @throws ShapeError
template <class X, class Y>
void check_upsample(const X& x, const Y& y) {
  if (y.batch != x.batch || y.height != 2 * x.height || y.width != 2 * x.width || y.channels != x.channels)
    throw ShapeError(concat("upsample_nearest: expected y twice as high and wide as x, found x [", x.batch, ", ",
                            x.height, ", ", x.width, ", ", x.channels, "], y [", y.batch, ", ", y.height, ", ", y.width,
                            ", ", y.channels, "]"));
}

}  // namespace ebb
