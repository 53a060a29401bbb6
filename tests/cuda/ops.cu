// Every operation on a cuda::Context against the same operation on a host::Context: tails, odd sizes, one row. The host
// computes in float32 on the same inputs, which T holds exactly, and rounds nothing to T: what differs is the GPU's
// error.
#define EIGEN_NO_CUDA
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ebb/cuda/ops.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "ebb/host.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantize.hpp"
#include "random.hpp"
#include "support/random.hpp"

using namespace ebb;

namespace {

/// The GPU, for all cases.
cuda::Engine& gpu() {
  static const cuda::Device device = cuda::Device::open(0);
  static cuda::Engine engine(device, cuda::attention_workspace(device));
  return engine;
}

/// A context of the GPU for T and the host's for float32, or for T, where results should be equal.
template <Element T>
struct Both {
  Workspace workspace;
  host::Context<float> host{workspace, 1};
  host::Context<T> same{workspace, 1};
  cuda::Context<T> device{gpu()};
};

/// The same numbers in the GPU's memory in T, and in the host's in float32 and in T. Rows are `stride` apart; what lies
/// between is never touched.
template <class T>
class Twin {
 public:
  Twin(const std::vector<T>& values, std::size_t rows, std::size_t columns, std::size_t stride)
      : wide_(values.begin(), values.end()),
        same_(values),
        copy_(on_device(values)),
        rows_(rows),
        columns_(columns),
        stride_(stride) {}
  Twin(testing::Random& random, std::size_t rows, std::size_t columns, std::size_t padding = 0, float deviation = 1.0f)
      : Twin(random.normal<T>(rows * (columns + padding), deviation), rows, columns, columns + padding) {}

  Matrix<float> host() { return {wide_.data(), rows_, columns_, stride_}; }
  Matrix<T> same() { return {same_.data(), rows_, columns_, stride_}; }
  Matrix<T> device() { return {copy_.data(), rows_, columns_, stride_}; }
  Image<float> host_image(std::size_t batch, std::size_t height, std::size_t width) {
    return {wide_.data(), batch, height, width, columns_};
  }
  Image<T> device_image(std::size_t batch, std::size_t height, std::size_t width) {
    return {copy_.data(), batch, height, width, columns_};
  }
  std::span<float> host_elements() { return wide_; }
  std::span<T> same_elements() { return same_; }
  std::span<T> device_elements() { return {copy_.data(), copy_.size()}; }

  /// Relative Frobenius distance of the GPU's numbers from the host's in float32; NaN where the GPU wrote between rows.
  double distance() const { return distance_but_for(rows_); }
  /// The same without one row.
  double distance_but_for(std::size_t row) const {
    const std::vector<T> copied = found();
    std::vector<float> numbers, expected;
    for (std::size_t i = 0; i < copied.size(); ++i) {
      if (i % stride_ >= columns_) {
        if (static_cast<float>(copied[i]) != wide_[i]) return std::nan("");
      } else if (i / stride_ != row) {
        numbers.push_back(copied[i]);
        expected.push_back(wide_[i]);
      }
    }
    return relative_error(numbers, expected);
  }
  /// Whether all of a row is NaN on both.
  bool undefined(std::size_t row) const {
    const std::vector<T> copied = found();
    for (std::size_t i = row * stride_; i < row * stride_ + columns_; ++i)
      if (!std::isnan(static_cast<float>(copied[i])) || !std::isnan(wide_[i])) return false;
    return true;
  }
  /// `distance`, relative to numbers of size one where the expected ones are smaller.
  double distance_of_ones() const {
    double norm = 0.0;
    for (std::size_t i = 0; i < wide_.size(); ++i)
      if (i % stride_ < columns_) norm += static_cast<double>(wide_[i]) * static_cast<double>(wide_[i]);
    const auto least = static_cast<double>(rows_ * columns_);
    return distance() * (norm == 0.0 ? std::sqrt(1.0 / least) : std::sqrt(std::min(1.0, norm / least)));
  }
  /// Whether the GPU's numbers are the host's in T, bit by bit, padding included.
  bool equal() const {
    const std::vector<T> copied = found();
    return std::memcmp(copied.data(), same_.data(), copied.size() * sizeof(T)) == 0;
  }

 private:
  std::vector<T> found() const {
    cuda::check(cudaDeviceSynchronize());
    return on_host(copy_);
  }

  std::vector<float> wide_;
  std::vector<T> same_;
  cuda::DeviceBuffer<T> copy_;
  std::size_t rows_, columns_, stride_;
};

template <Element T>
constexpr double bound = operation_bound<T>;

/// A weight in both memories.
struct Weight {
  AnyTensor host, device;
  AlignedBuffer segment;
  cuda::DeviceBuffer<std::byte> copy;

  Weight(testing::Random& random, const Shape& shape, const FormatChoice& choice, DType dense) {
    if (choice.kind == FormatChoice::Kind::dense)
      emplace_dense(host, shape, dense);
    else
      emplace(host, shape, choice);
    device = host;
    segment = AlignedBuffer(host.bytes());
    const auto source = random.normal(shape.elements(), 1.0f / std::sqrt(static_cast<float>(shape[1])));
    quantize(std::span<const float>(source), host, segment.bytes(), "weight");
    copy = cuda::DeviceBuffer<std::byte>(host.bytes());
    copy.upload(std::vector<std::byte>(segment.bytes().begin(), segment.bytes().end()));
    host.bind(segment.data());
    device.bind(copy.data());
  }
};

struct Product {
  std::size_t m, n, k;
};

template <Element T>
void check_linear(testing::Random& random, const FormatChoice& choice, DType dense, const Product& product) {
  CAPTURE(choice.name());
  CAPTURE(product.m);
  CAPTURE(product.n);
  CAPTURE(product.k);
  Both<T> both;
  const Weight weight(random, {product.n, product.k}, choice, dense);
  Twin<T> x(random, product.m, product.k, product.m % 2 == 0 ? 8 : 0), factor(random, product.m, product.n),
      gate(random, 1, product.n);
  Twin<float> bias(random, 1, product.n);
  const auto agrees = [&](const std::string& name, auto host_stage, auto device_stage) {
    CAPTURE(name);
    Twin<T> y(random, product.m, product.n, product.m % 3 == 0 ? 8 : 0);
    linear(both.host, x.host(), weight.host, host_stage(y.host()), y.host());
    linear(both.device, x.device(), weight.device, device_stage(y.device()), y.device());
    // Beside the result, 16 bits round the dequantized weight, a bias, and the product before a stage that is not
    // fused. Of many numbers the bound holds all that, for a mean rounding is less than half the largest. Of few it
    // holds one rounding: four are allowed, of terms of size one, which may cancel.
    if (sizeof(T) == 2 && product.m * product.n < 16)
      CHECK(y.distance_of_ones() < 4 * bound<T>);
    else
      CHECK(y.distance() < bound<T>);
  };
  const Bias host_bias{bias.host().data}, device_bias{bias.device().data};
  agrees(
      "nothing", [](auto) { return Identity{}; }, [](auto) { return Identity{}; });
  agrees(
      "bias", [&](auto) { return host_bias; }, [&](auto) { return device_bias; });
  agrees(
      "bias, GELU", [&](auto) { return chain(host_bias, GeluTanh{}); },
      [&](auto) { return chain(device_bias, GeluTanh{}); });
  agrees(
      "bias, SiLU", [&](auto) { return chain(host_bias, Silu{}); }, [&](auto) { return chain(device_bias, Silu{}); });
  agrees(
      "residual", [&](auto y) { return Residual{y}; }, [&](auto y) { return Residual{y}; });
  Twin<T> other(random, product.m + 1, product.n, product.m % 3 == 0 ? 8 : 0);
  const auto behind_one = [&](auto matrix) {  // of y's stride, but aligned to one element
    return Matrix(matrix.data + 1, product.m, product.n, matrix.stride);
  };
  agrees(
      "residual elsewhere", [&](auto) { return Residual{behind_one(other.host())}; },
      [&](auto) { return Residual{behind_one(other.device())}; });
  agrees(
      "bias, gated residual",
      [&](auto y) {
        return chain(host_bias, GatedResidual{gate.host(), product.m, y});
      },
      [&](auto y) {
        return chain(device_bias, GatedResidual{gate.device(), product.m, y});
      });
  agrees(
      "times", [&](auto) { return Multiply{factor.host()}; }, [&](auto) { return Multiply{factor.device()}; });
}

FormatChoice format(FormatChoice::Kind kind, std::size_t block = 64,
                    DoubleQuantization nested = DoubleQuantization::off) {
  FormatChoice choice;
  choice.kind = kind;
  choice.block = {.block_size = block, .nested = nested};
  return choice;
}

template <Element T>
void check_attention(testing::Random& random, const AttentionShape& shape, AttentionMask mask, bool biased) {
  CAPTURE(shape.head_dim);
  CAPTURE(shape.query_tokens);
  CAPTURE(shape.key_tokens);
  Both<T> both;
  const std::size_t width = shape.heads * shape.head_dim;
  Twin<T> q(random, shape.batch * shape.query_tokens, width), k(random, shape.batch * shape.key_tokens, width),
      v(random, shape.batch * shape.key_tokens, width), y(random, shape.batch * shape.query_tokens, width);
  Twin<float> bias(random, shape.heads * shape.query_tokens, shape.key_tokens);
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  attention(both.host, q.host(), k.host(), v.host(), shape, scale, mask, biased ? bias.host() : Matrix<float>(),
            y.host());
  attention(both.device, q.device(), k.device(), v.device(), shape, scale, mask,
            biased ? bias.device() : Matrix<float>(), y.device());
  CHECK(y.distance() < bound<T>);
}

template <Element T>
void check_norms(testing::Random& random, std::size_t items, std::size_t rows, std::size_t width,
                 std::size_t head_dim) {
  CAPTURE(rows);
  CAPTURE(width);
  Both<T> both;
  const std::size_t count = items * rows;
  const std::size_t padding = rows % 2 == 0 ? 8 : 0;
  Twin<T> x(random, count, width, padding, 3.0f), y(random, count, width, padding), shift(random, items, width),
      scale(random, items, width);
  Twin<float> gamma(random, 1, width), beta(random, 1, width), wide_shift(random, items, width),
      wide_scale(random, items, width), cosines(random, rows, head_dim), sines(random, rows, head_dim);
  const auto agrees = [&](const char* name, auto run, double limit = bound<T>) {
    CAPTURE(name);
    run(
        both.host, [](auto& twin) { return twin.host(); }, [](auto& twin) { return twin.host_elements(); });
    run(
        both.device, [](auto& twin) { return twin.device(); }, [](auto& twin) { return twin.device_elements(); });
    CHECK(y.distance() < limit);
  };
  agrees("layer_norm",
         [&](auto& ctx, auto at, auto all) { layer_norm(ctx, at(x), all(gamma), all(beta), 1e-6f, at(y)); });
  agrees("layer_norm_modulate",
         [&](auto& ctx, auto at, auto) { layer_norm_modulate(ctx, at(x), at(shift), at(scale), rows, 1e-6f, at(y)); });
  agrees("layer_norm_modulate, float32", [&](auto& ctx, auto at, auto) {
    layer_norm_modulate(ctx, at(x), at(wide_shift), at(wide_scale), rows, 1e-6f, at(y));
  });
  for (const Activation activation : {Activation::none, Activation::silu})
    agrees("rms_norm",
           [&](auto& ctx, auto at, auto all) { rms_norm(ctx, at(x), all(gamma), 1e-6f, activation, at(y)); });
  agrees("softmax", [&](auto& ctx, auto at, auto) { softmax(ctx, at(x), 0.25f, at(y)); });
  for (const bool together : {false, true})
    agrees(
        together ? "rms_norm_rope, all heads" : "rms_norm_rope",
        [&](auto& ctx, auto at, auto all) {
          copy(ctx, at(x), at(y));
          rms_norm_rope(ctx, at(y), all(gamma).first(together ? width : head_dim), 1e-6f, at(cosines), at(sines));
        },
        // Rounded before the rotation as well, as in the reference; of few numbers the largest of both roundings shows.
        (count * width < 16 ? 2.0 : 1.0) * bound<T>);
}

template <Element T>
void check_images(testing::Random& random, std::size_t batch, std::size_t height, std::size_t width,
                  std::size_t channels, std::size_t outputs, std::size_t groups) {
  CAPTURE(height);
  CAPTURE(width);
  CAPTURE(channels);
  Both<T> both;
  const std::size_t pixels = batch * height * width;
  Twin<T> x(random, pixels, channels), y(random, pixels, channels), z(random, pixels, outputs),
      twice(random, 4 * pixels, channels);
  Twin<float> gamma(random, 1, channels), beta(random, 1, channels), bias(random, 1, outputs);
  const auto image = [&](auto& twin) { return twin.host_image(batch, height, width); };
  const auto device_image = [&](auto& twin) { return twin.device_image(batch, height, width); };
  for (const Activation activation : {Activation::none, Activation::silu}) {
    group_norm(both.host, image(x), groups, gamma.host_elements(), beta.host_elements(), 1e-6f, activation, image(y));
    group_norm(both.device, device_image(x), groups, gamma.device_elements(), beta.device_elements(), 1e-6f, activation,
               device_image(y));
    CHECK(y.distance() < bound<T>);
  }
  for (const std::size_t kernel : {1, 3}) {
    CAPTURE(kernel);
    DenseTensor filter;
    emplace_dense(filter, {outputs, kernel, kernel, channels}, dtype_of<T>);
    AlignedBuffer segment(filter.bytes());
    const auto source =
        random.normal(filter.elements(), 1.0f / std::sqrt(static_cast<float>(kernel * kernel * channels)));
    quantize(std::span<const float>(source), filter, segment.bytes(), "filter");
    cuda::DeviceBuffer<std::byte> copy(filter.bytes());
    copy.upload(std::vector<std::byte>(segment.bytes().begin(), segment.bytes().end()));
    DenseTensor device_filter = filter;
    filter.bind(segment.data());
    device_filter.bind(copy.data());
    conv2d(both.host, image(x), filter, Bias{bias.host().data}, image(z));
    conv2d(both.device, device_image(x), device_filter, Bias{bias.device().data}, device_image(z));
    CHECK(z.distance() < bound<T>);
  }
  upsample_nearest(both.host, image(x), twice.host_image(batch, 2 * height, 2 * width));
  upsample_nearest(both.device, device_image(x), twice.device_image(batch, 2 * height, 2 * width));
  CHECK(twice.distance() == 0.0);  // copies
}

template <Element T>
void check_elementwise(testing::Random& random, std::size_t rows, std::size_t columns) {
  CAPTURE(rows);
  CAPTURE(columns);
  Both<T> both;
  const std::size_t padding = rows % 2 == 0 ? 8 : 0;
  Twin<T> a(random, rows, columns, padding), b(random, rows, columns, padding), y(random, rows, columns, padding);
  Twin<float> wide(random, rows, columns), factors(random, 1, 3);
  const auto on_device_of = [&](auto run) {
    run(
        both.device, [](auto& twin) { return twin.device(); }, [](auto& twin) { return twin.device_elements(); });
  };
  const auto agrees = [&](const char* name, auto run) {
    CAPTURE(name);
    run(
        both.host, [](auto& twin) { return twin.host(); }, [](auto& twin) { return twin.host_elements(); });
    on_device_of(run);
    CHECK(y.distance() < bound<T>);
  };
  const auto equals = [&](const char* name, auto& found, auto run) {
    CAPTURE(name);
    run(
        both.same, [](auto& twin) { return twin.same(); }, [](auto& twin) { return twin.same_elements(); });
    on_device_of(run);
    CHECK(found.equal());
  };
  equals("widen", wide, [&](auto& ctx, auto at, auto) { map(ctx, at(a), Identity{}, at(wide)); });
  equals("narrow", y, [&](auto& ctx, auto at, auto) { map(ctx, at(wide), Identity{}, at(y)); });
  equals("add", y, [&](auto& ctx, auto at, auto) { add(ctx, at(a), at(b), at(y)); });
  equals("add_scaled", y, [&](auto& ctx, auto at, auto all) { add_scaled(ctx, at(a), all(factors).first(1), at(y)); });
  equals("guide", y, [&](auto& ctx, auto at, auto) { guide(ctx, at(a), at(b), 5.0f, at(y)); });
  equals("copy", y, [&](auto& ctx, auto at, auto) { copy(ctx, at(b), at(y)); });
  agrees("copy", [&](auto& ctx, auto at, auto) { copy(ctx, at(b), at(y)); });
  agrees("linear_combination", [&](auto& ctx, auto at, auto all) {
    using Input = std::remove_pointer_t<decltype(at(y).data)>;
    linear_combination(ctx, std::array<Matrix<const Input>, 3>{at(a), at(b), at(y)}, all(factors), at(y));
  });
  agrees("map", [&](auto& ctx, auto at, auto) { map(ctx, at(a), Silu{}, at(y)); });
}

}  // namespace

TEST_CASE_TEMPLATE("linear, every format and any extents", T, float, bfloat16, float16) {
  testing::Random random(61);
  using Kind = FormatChoice::Kind;
  std::vector<Product> products{{1, 1, 1},     {1, 64, 128},  {2, 33, 65},    {7, 96, 192},  {16, 128, 64},
                                {17, 128, 64}, {33, 77, 130}, {64, 256, 256}, {130, 72, 40}, {257, 64, 384}};
  for (int i = 0; i < 4; ++i) products.push_back({1 + random.below(200), 1 + random.below(200), 1 + random.below(300)});
  for (const Product& product : products) {
    for (const DType dense : {DType::f32, DType::f16, DType::bf16})
      check_linear<T>(random, format(Kind::dense), dense, product);
    for (const Kind kind : {Kind::nf4, Kind::fp4}) {
      check_linear<T>(random, format(kind), DType::f32, product);
      check_linear<T>(random, format(kind, 128, DoubleQuantization::on), DType::f32, product);
    }
    check_linear<T>(random, format(Kind::int8), DType::f32, product);
    check_linear<T>(random, format(Kind::fp8), DType::f32, product);
  }
}

TEST_CASE_TEMPLATE("attention, every head size, masks and biases", T, float, bfloat16, float16) {
  testing::Random random(62);
  for (const std::size_t head_dim : {8, 18, 64, 72, 128, 384})
    for (const auto [queries, keys] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {5, 7}, {64, 64}, {77, 77}, {130, 257}}) {
      const AttentionShape shape{
          .batch = 2, .heads = 3, .head_dim = head_dim, .query_tokens = queries, .key_tokens = keys};
      check_attention<T>(random, shape, AttentionMask::none, false);
      check_attention<T>(random, shape, AttentionMask::none, true);
      check_attention<T>(random, shape, AttentionMask::causal, false);
    }
}

TEST_CASE_TEMPLATE("keys that the bias hides weigh nothing; a query that sees none is NaN on both", T, float, bfloat16,
                   float16) {
  testing::Random random(67);
  for (const std::size_t head_dim : {64, 72, 384}) {
    CAPTURE(head_dim);
    constexpr std::size_t queries = 70, keys = 200, hidden_query = 33, first_seen = 130;
    Both<T> both;
    const AttentionShape shape{.heads = 1, .head_dim = head_dim, .query_tokens = queries, .key_tokens = keys};
    Twin<T> q(random, queries, head_dim), k(random, keys, head_dim), v(random, keys, head_dim),
        y(random, queries, head_dim);
    std::vector<float> offsets(queries * keys, 0.0f);
    for (std::size_t i = 0; i < offsets.size(); ++i)  // whole tiles of keys, and all keys of one query
      if (i % keys < first_seen || i / keys == hidden_query) offsets[i] = -std::numeric_limits<float>::infinity();
    Twin<float> bias(offsets, queries, keys, keys);
    attention(both.host, q.host(), k.host(), v.host(), shape, 0.125f, AttentionMask::none, bias.host(), y.host());
    attention(both.device, q.device(), k.device(), v.device(), shape, 0.125f, AttentionMask::none, bias.device(),
              y.device());
    CHECK(y.distance_but_for(hidden_query) < bound<T>);
    CHECK(y.undefined(hidden_query));
  }
}

TEST_CASE_TEMPLATE("row norms and rotations", T, float, bfloat16, float16) {
  testing::Random random(63);
  check_norms<T>(random, 1, 1, 2, 2);
  check_norms<T>(random, 2, 7, 54, 18);
  check_norms<T>(random, 3, 2, 128, 64);
  check_norms<T>(random, 1, 33, 1536, 128);
  check_norms<T>(random, 2, 6, 5120, 128);
}

TEST_CASE_TEMPLATE("operations on images", T, float, bfloat16, float16) {
  testing::Random random(64);
  check_images<T>(random, 1, 1, 1, 4, 3, 2);
  check_images<T>(random, 2, 5, 7, 8, 8, 4);
  check_images<T>(random, 1, 17, 13, 32, 24, 32);
  check_images<T>(random, 1, 8, 16, 64, 128, 32);
}

TEST_CASE_TEMPLATE("element by element", T, float, bfloat16, float16) {
  testing::Random random(65);
  for (const auto [rows, columns] : {std::pair<std::size_t, std::size_t>{1, 1}, {3, 7}, {4, 64}, {70, 1000}})
    check_elementwise<T>(random, rows, columns);
}

TEST_CASE("tables: timesteps, relative positions, rows by id") {
  testing::Random random(66);
  Both<float> both;
  const auto waves_differ = [&](const std::vector<float>& timesteps) {
    Twin<float> waves(random, timesteps.size(), 256);
    timestep_embedding(both.host, timesteps, waves.host());
    timestep_embedding(both.device, timesteps, waves.device());
    return waves.distance();
  };
  CHECK(waves_differ({0.0f, 1.0f, 17.25f}) < bound<float>);
  // An angle near 1000 that differs in its last bit carries 6e-5 into its sine.
  CHECK(waves_differ({517.25f, 999.0f}) < 1e-4);

  constexpr std::size_t heads = 5, tokens = 13, rows = 9;
  const auto values = random.normal(rows * heads);
  Vector host_table(Shape{rows, heads}), device_table(Shape{rows, heads});
  AlignedBuffer segment(host_table.bytes());
  std::copy(values.begin(), values.end(), reinterpret_cast<float*>(segment.data()));
  cuda::DeviceBuffer<std::byte> copied(host_table.bytes());
  copied.upload(std::vector<std::byte>(segment.bytes().begin(), segment.bytes().end()));
  host_table.bind(segment.data());
  device_table.bind(copied.data());
  std::vector<std::int32_t> buckets;
  for (std::size_t i = 0; i + 1 < 2 * tokens; ++i) buckets.push_back(static_cast<std::int32_t>(random.below(rows)));
  Twin<float> bias(random, heads * tokens, tokens);
  relative_bias(both.host, host_table, buckets, bias.host());
  relative_bias(both.device, device_table, buckets, bias.device());
  CHECK(bias.distance() == 0.0);

  DenseTensor table;
  emplace_dense(table, {10, 12}, DType::bf16);
  AlignedBuffer rows_segment(table.bytes());
  quantize(std::span<const float>(random.normal(120)), table, rows_segment.bytes(), "table");
  table.bind(rows_segment.data());
  const std::vector<std::int32_t> ids{9, 0, 3, 3};
  Twin<float> gathered(random, 4, 12);
  gather_rows(both.host, table, ids, gathered.host());
  gather_rows(both.device, table, ids, gathered.device());
  CHECK(gathered.distance() == 0.0);
}
