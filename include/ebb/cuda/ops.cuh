#pragma once
// The operations on a cuda::Context, but for linear: kernels behind the contracts of ebb/ops.

#include <cuda_runtime_api.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/attention.cuh"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/context.hpp"
#include "ebb/cuda/conv.cuh"
#include "ebb/cuda/elementwise.cuh"
#include "ebb/cuda/group_norm.cuh"
#include "ebb/cuda/linear.cuh"
#include "ebb/cuda/norm.cuh"
#include "ebb/cuda/quantize.cuh"
#include "ebb/cuda/softmax.cuh"
#include "ebb/epilogue/stages.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/ops/conv.hpp"
#include "ebb/ops/elementwise.hpp"
#include "ebb/ops/norm.hpp"
#include "ebb/ops/quantize.hpp"
#include "ebb/ops/softmax.hpp"
#include "ebb/ops/transfer.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb::cuda {

/// Memory for attention on `device`, whichever kernel runs.
inline AttentionWorkspaceBytes attention_workspace(const Device& device) {
  return device.major == 9 ? sm90_attention_workspace(device.multiprocessors) : AttentionWorkspaceBytes{};
}

// ops/transfer.hpp

template <Element T, class U>
void copy(const Context<T>& ctx, std::type_identity_t<Matrix<const U>> from, Matrix<U> to) {
  check_copy(from, to);
  if (to.size() == 0) return;
  check(cudaMemcpy2DAsync(to.data, to.stride * sizeof(U), from.data, from.stride * sizeof(U), to.columns * sizeof(U),
                          to.rows, cudaMemcpyDeviceToDevice, ctx.stream()));
}

template <Element T, class U>
void clear(const Context<T>& ctx, Matrix<U> to) {
  if (to.size() == 0) return;
  check(cudaMemset2DAsync(to.data, to.stride * sizeof(U), 0, to.columns * sizeof(U), to.rows, ctx.stream()));
}

template <Element T, class U>
void upload(const Context<T>& ctx, std::type_identity_t<std::span<const U>> from, std::span<U> to) {
  check_transfer(from.size(), to.size());
  check(cudaMemcpyAsync(to.data(), from.data(), from.size_bytes(), cudaMemcpyHostToDevice, ctx.stream()));
  check(cudaStreamSynchronize(ctx.stream()));  // `from` may be pinned, and then the copy would still be reading it
}

template <Element T, class U>
void download(const Context<T>& ctx, std::type_identity_t<std::span<const U>> from, std::span<U> to) {
  check_transfer(from.size(), to.size());
  check(cudaMemcpyAsync(to.data(), from.data(), from.size_bytes(), cudaMemcpyDeviceToHost, ctx.stream()));
  check(cudaStreamSynchronize(ctx.stream()));
}

// ops/elementwise.hpp

template <Element T, class From, Epilogue Stage, Element To>
  requires Element<std::remove_const_t<From>>
void map(const Context<T>& ctx, Matrix<From> x, Stage stage, Matrix<To> y) {
  check_same_extents("map", x, y);
  check(launch_map(x, stage, y, ctx.stream()));
}

template <Element T, std::size_t count>
void linear_combination(const Context<T>& ctx, const std::array<Matrix<const T>, count>& inputs,
                        std::span<const float> coefficients, Matrix<T> y) {
  check_linear_combination(inputs, coefficients.size(), y);
  check(launch_linear_combination(inputs, coefficients.data(), y, ctx.stream()));
}

template <Element T>
void add(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> a, std::type_identity_t<Matrix<const T>> b,
         Matrix<T> y) {
  check_same_extents("add", a, y);
  check_same_extents("add", b, y);
  check(launch_add(a, b, y, ctx.stream()));
}

template <Element T>
void add_scaled(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, std::span<const float> factor,
                Matrix<T> y) {
  check_add_scaled(x, factor.size(), y);
  check(launch_add_scaled(x, factor.data(), y, ctx.stream()));
}

template <Element T>
void guide(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> conditional,
           std::type_identity_t<Matrix<const T>> unconditional, float scale, Matrix<T> y) {
  check_same_extents("guide", conditional, y);
  check_same_extents("guide", unconditional, y);
  check(launch_guide(conditional, unconditional, scale, y, ctx.stream()));
}

template <Element T>
void timestep_embedding(const Context<T>& ctx, std::span<const float> timesteps, Matrix<T> y) {
  check_timestep_embedding(timesteps.size(), y);
  const auto frame = ctx.workspace().frame();
  check(launch_timestep_embedding(uploaded(ctx, timesteps).data(), y, ctx.stream()));
}

template <Element T>
void gather_rows(const Context<T>& ctx, const DenseTensor& table, std::span<const std::int32_t> ids, Matrix<T> y) {
  check_gather(table.shape(), ids, y);
  std::vector<T> rows(y.size());  // a prompt's worth; the table stays in home memory
  for (std::size_t row = 0; row < ids.size(); ++row)
    dequantize(table, static_cast<std::size_t>(ids[row]) * y.columns,
               std::span<T>(rows).subspan(row * y.columns, y.columns));
  upload(ctx, std::span<const T>(rows), y.elements());
}

// ops/attention.hpp

template <Element T>
void attention(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> q, std::type_identity_t<Matrix<const T>> k,
               std::type_identity_t<Matrix<const T>> v, const AttentionShape& shape, float scale, AttentionMask mask,
               std::type_identity_t<Matrix<const float>> bias, Matrix<T> y) {
  check_attention(q, k, v, shape, mask, bias, y);
  require(bias.contiguous(), "attention: the rows of the bias must be neighbours in memory");
  AttentionArguments<T> arguments{.query = q.data,
                                  .key = k.data,
                                  .value = v.data,
                                  .output = y.data,
                                  .query_stride = q.stride,
                                  .key_stride = k.stride,
                                  .value_stride = v.stride,
                                  .output_stride = y.stride,
                                  .shape = shape,
                                  .scale = scale,
                                  .mask = mask,
                                  .bias = bias.data};
  if (ctx.engine().attention_scratch.size() > 0) {
    arguments.scratch = ctx.engine().attention_scratch.data();
    arguments.flags = ctx.engine().attention_flags.data();
  }
  check(launch_attention(arguments, ctx.stream()));
}

template <Element T>
void relative_bias(const Context<T>& ctx, const Vector& table, std::span<const std::int32_t> buckets,
                   Matrix<float> bias) {
  check_relative_bias(table.shape(), buckets, bias);
  const auto frame = ctx.workspace().frame();
  check(
      launch_relative_bias(table.values().data(), table.shape()[1], uploaded(ctx, buckets).data(), bias, ctx.stream()));
}

// ops/norm.hpp

template <Element T>
void layer_norm(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, std::span<const float> gamma,
                std::span<const float> beta, float epsilon, Matrix<T> y) {
  check_row_norm("layer_norm", x, gamma.size(), y);
  check_row_norm("layer_norm", x, beta.size(), y);
  check(launch_layer_norm(x, gamma.data(), beta.data(), epsilon, y, ctx.stream()));
}

template <Element T, class Modulation>
  requires Element<std::remove_const_t<Modulation>>
void layer_norm_modulate(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, Matrix<Modulation> shift,
                         Matrix<Modulation> scale, std::size_t rows_per_item, float epsilon, Matrix<T> y) {
  check_row_norm("layer_norm_modulate", x, x.columns, y);
  check_modulation("layer_norm_modulate", x, shift, rows_per_item);
  check_modulation("layer_norm_modulate", x, scale, rows_per_item);
  check(launch_layer_norm_modulate(x, shift, scale, rows_per_item, epsilon, y, ctx.stream()));
}

template <Element T>
void rms_norm(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, std::span<const float> gamma,
              float epsilon, Activation activation, Matrix<T> y) {
  check_row_norm("rms_norm", x, gamma.size(), y);
  if (activation == Activation::silu)
    check(launch_rms_norm(x, gamma.data(), epsilon, Silu{}, y, ctx.stream()));
  else
    check(launch_rms_norm(x, gamma.data(), epsilon, Identity{}, y, ctx.stream()));
}

template <Element T>
void rms_norm_rope(const Context<T>& ctx, Matrix<T> x, std::span<const float> gamma, float epsilon,
                   Matrix<const float> cosines, Matrix<const float> sines) {
  check_rope(x, gamma.size(), cosines, sines);
  check(launch_rms_norm_rope(x, gamma.data(), gamma.size(), epsilon, cosines, sines, ctx.stream()));
}

template <Element T>
void group_norm(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, std::size_t groups,
                std::span<const float> gamma, std::span<const float> beta, float epsilon, Activation activation,
                Image<T> y) {
  check_group_norm(x, groups, gamma.size(), beta.size(), y);
  const auto frame = ctx.workspace().frame();
  const auto scratch =
      ctx.template array<std::byte>(group_norm_workspace_bytes(x.batch, x.height * x.width, x.channels, groups));
  if (activation == Activation::silu)
    check(launch_group_norm(x, groups, gamma.data(), beta.data(), epsilon, Silu{}, y, scratch.data(), ctx.stream()));
  else
    check(
        launch_group_norm(x, groups, gamma.data(), beta.data(), epsilon, Identity{}, y, scratch.data(), ctx.stream()));
}

// ops/softmax.hpp

template <Element T>
void softmax(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, float scale, Matrix<T> y) {
  check_softmax(x, y);
  check(launch_softmax(x, scale, y, ctx.stream()));
}

// ops/quantize.hpp

template <Element T, QuantFormat Format>
void quantize(const Context<T>& ctx, std::type_identity_t<std::span<const T>> values,
              const QuantizedTensor<Format>& target, std::span<std::byte> segment, std::string_view tensor_name) {
  check_quantize(tensor_name, values.size(), target.shape(), target.bytes(), segment.data(), segment.size());
  const SegmentLayout& layout = target.layout();
  auto* codes = reinterpret_cast<typename Format::Code*>(segment.data() + layout.codes_offset);
  if (target.bytes() != 0) check(cudaMemsetAsync(segment.data(), 0, target.bytes(), ctx.stream()));  // for the padding
  if constexpr (DenseFormat<Format>) {
    check(launch_map(Matrix<const T>(values.data(), 1, values.size()), Identity{},
                     Matrix<typename Format::Code>(codes, 1, values.size()), ctx.stream()));
  } else {
    const auto frame = ctx.workspace().frame();
    const auto first_not_finite = ctx.template array<unsigned long long>(1);
    check(cudaMemsetAsync(first_not_finite.data(), 0xff, first_not_finite.size_bytes(), ctx.stream()));
    float* scales = reinterpret_cast<float*>(segment.data() + layout.scales_offset);
    if constexpr (BlockFormat<Format>) {
      if (target.nested()) scales = ctx.template array<float>(target.groups()).data();
      check(launch_quantize<Format>(values.data(), values.size(),
                                    static_cast<unsigned>(std::countr_zero(target.options().block_size)), codes, scales,
                                    first_not_finite.data(), ctx.stream()));
      if (target.nested()) {
        std::byte* nested = segment.data() + layout.nested_offset;
        check(launch_quantize_scales(
            scales, target.groups(), reinterpret_cast<std::uint8_t*>(segment.data() + layout.scales_offset),
            reinterpret_cast<float*>(nested + nested_map_at), reinterpret_cast<float*>(nested + nested_scales_at),
            reinterpret_cast<float*>(nested + nested_mean_at(layout)), ctx.stream()));
      }
    } else {
      check(launch_quantize<Format>(values.data(), target.groups(), target.group(), codes, scales,
                                    first_not_finite.data(), ctx.stream()));
    }
    std::array<unsigned long long, 1> first{};
    download(ctx, first_not_finite, std::span<unsigned long long>(first));
    if (first[0] != all_finite) {
      std::array<T, 1> value{};
      download(ctx, values.subspan(first[0], 1), std::span<T>(value));
      throw ValueError(concat("tensor '", tensor_name, "': element ", first[0], " is ", static_cast<float>(value[0]),
                              ", which ", Format::name, " cannot hold: expected finite numbers",
                              PreparingFormat<Format> ? " that fit float16" : "",
                              "; check the checkpoint or exclude the tensor from quantization"));
    }
  }
}

template <Element T, QuantFormat Format>
void dequantize(const Context<T>& ctx, const QuantizedTensor<Format>& tensor, std::type_identity_t<std::span<T>> out) {
  check_dequantize(tensor.shape(), out.data(), out.size());
  if constexpr (DenseFormat<Format>)
    check(launch_map(Matrix<const typename Format::Code>(tensor.values().data(), 1, out.size()), Identity{},
                     Matrix<T>(out.data(), 1, out.size()), ctx.stream()));
  else if constexpr (BlockFormat<Format>)
    check(launch_dequantize<Format>(blockwise_tensor(tensor), out.data(), ctx.stream()));
  else
    check(launch_dequantize<Format>(tensor.codes().data(), tensor.scales().data(), tensor.groups(), tensor.group(),
                                    out.data(), ctx.stream()));
}

// ops/conv.hpp

template <Element T, Epilogue Stage>
void conv2d(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, const DenseTensor& filter, Stage stage,
            Image<T> y) {
  check_conv2d(x, filter.shape(), y);
  if (y.size() == 0) return;
  const auto frame = ctx.workspace().frame();
  const std::size_t kernel = filter.shape()[1];
  filter.visit([&](const auto& tensor) {
    const auto weights = detail::dense_weight(ctx, tensor, y.channels, kernel * kernel * x.channels);
    check(launch_conv2d(x, weights.data, kernel, stage, y, ctx.stream()));
  });
}

template <Element T, Epilogue Stage>
void conv3d(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, const DenseTensor& filter, Stage stage,
            Image<T> y) {
  check_conv3d(x, filter.shape(), y);
  if (y.size() == 0) return;
  const auto frame = ctx.workspace().frame();
  const std::size_t depth = filter.shape()[1];
  const std::size_t kernel = filter.shape()[2];
  filter.visit([&](const auto& tensor) {
    const auto weights = detail::dense_weight(ctx, tensor, y.channels, depth * kernel * kernel * x.channels);
    check(launch_conv3d(x, weights.data, depth, kernel, stage, y, ctx.stream()));
  });
}

template <Element T>
void upsample_nearest(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, Image<T> y) {
  check_upsample(x, y);
  check(launch_upsample_nearest(x, y, ctx.stream()));
}

}  // namespace ebb::cuda
