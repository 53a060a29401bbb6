#include "ebb/cuda/int8_linear.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "random.hpp"

namespace {

using ebb::INT8;
using ebb::Matrix;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

struct Case {
  std::size_t m, n, k;
  std::size_t outliers;     // columns
  std::size_t padding = 0;  // of the rows of x and y
  std::size_t offset = 0;   // of x, y and the codes of the weight
  float threshold = 6.0f;   // 0: outliers are treated like anything else
};

/// The plain arithmetic; see `linear_int8` in ebb/host/linear.hpp.
class Reference {
 public:
  template <class T>
  Reference(const Case& c, const std::vector<T>& x, const std::int8_t* weight, const std::vector<float>& weight_scales)
      : case_(c), weight_(weight), weight_scales_(weight_scales), half_(c.m * c.k), scales_(c.m), codes_(c.m * c.k) {
    std::vector<char> flags(c.k, 0);
    for (std::size_t row = 0; row < c.m; ++row)
      for (std::size_t column = 0; column < c.k; ++column) {
        float& half = half_[row * c.k + column];
        half = static_cast<float>(ebb::float16(static_cast<float>(x[c.offset + row * (c.k + c.padding) + column])));
        if (is_outlier(half))
          flags[column] = 1;
        else
          scales_[row] = std::max(scales_[row], std::abs(half));
      }
    for (std::size_t column = 0; column < c.k; ++column)
      if (flags[column]) outliers_.push_back(column);
    for (std::size_t i = 0; i < half_.size(); ++i) {
      const float largest = scales_[i / c.k];
      const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
      codes_[i] = flags[i % c.k] ? 0 : static_cast<int>(std::nearbyint(half_[i] * inverse));
    }
  }
  std::size_t outliers() const { return outliers_.size(); }
  float operator()(std::size_t row, std::size_t output) const {
    int sum = 0;
    for (std::size_t i = 0; i < case_.k; ++i) sum += codes_[row * case_.k + i] * weight_[output * case_.k + i];
    const float scale = weight_scales_[output];
    float value = static_cast<float>(sum) * (scales_[row] * scale) * (1.0f / (127.0f * 127.0f));
    for (const std::size_t column : outliers_)
      value = std::fma(half_[row * case_.k + column], INT8::decode(weight_[output * case_.k + column], scale), value);
    return value;
  }

 private:
  bool is_outlier(float half) const { return case_.threshold > 0.0f && std::abs(half) >= case_.threshold; }

  Case case_;
  const std::int8_t* weight_;
  std::vector<float> weight_scales_, half_, scales_;
  std::vector<int> codes_;
  std::vector<std::size_t> outliers_;
};

/// Random rows in which `outliers` columns, spread over all, hold one large value each.
template <class T>
std::vector<T> activations(const Case& c, unsigned seed) {
  auto x = random_values<T>(c.offset + c.m * (c.k + c.padding), seed);
  for (T& value : x) value = T(std::clamp(static_cast<float>(value), -5.0f, 5.0f));
  const auto at = [&](std::size_t row, std::size_t column) -> T& {
    return x[c.offset + row * (c.k + c.padding) + column];
  };
  if (c.m > 2)
    for (std::size_t column = 0; column < c.k; ++column) at(2, column) = T(0.0f);
  for (std::size_t i = 0; i < c.outliers; ++i)
    at(i % std::min<std::size_t>(c.m, 2), i * c.k / c.outliers) = T(i % 3 == 0 ? 6.0f : i % 3 == 1 ? -35.0f : 5.999f);
  return x;
}

template <class T>
void check_case(const Case& c, std::size_t step, unsigned seed) {
  CAPTURE(c.m);
  CAPTURE(c.n);
  CAPTURE(c.k);
  CAPTURE(c.outliers);
  CAPTURE(c.padding);
  CAPTURE(c.offset);
  const std::size_t y_stride = c.n + c.padding;
  const auto x = activations<T>(c, seed);
  std::vector<std::int8_t> codes;
  for (const float value : random_values<float>(c.offset + c.n * c.k, seed + 1, 50.0f))
    codes.push_back(static_cast<std::int8_t>(std::clamp(value, -127.0f, 127.0f)));
  auto scales = random_values<float>(c.n, seed + 2);
  for (float& scale : scales) scale = std::abs(scale);
  const Reference reference(c, x, codes.data() + c.offset, scales);
  CHECK(reference.outliers() == (c.threshold > 0.0f ? c.outliers : 0));
  const auto device_x = on_device(x);
  const auto device_codes = on_device(codes);
  const auto device_scales = on_device(scales);
  const auto workspace = poisoned<std::byte>(ebb::cuda::int8_linear_workspace_bytes(c.m, c.k));
  const auto launch = [&](const auto& stage, const DeviceBuffer<T>& y) {
    check(ebb::cuda::launch_int8_linear(Matrix<const T>(device_x.data() + c.offset, c.m, c.k, c.k + c.padding),
                                        device_codes.data() + c.offset, device_scales.data(), c.threshold, stage,
                                        Matrix<T>(y.data() + c.offset, c.m, c.n, y_stride), workspace.data(), nullptr));
  };
  const auto y = poisoned<T>(c.offset + c.m * y_stride);
  launch(ebb::Identity{}, y);
  const auto found = on_host(y);
  std::size_t wrong = 0;
  for (std::size_t row = 0; row < c.m; row += step)
    for (std::size_t column = 0; column < c.n; ++column) {
      const T expected(reference(row, column));
      wrong += std::memcmp(&found[c.offset + row * y_stride + column], &expected, sizeof(T)) != 0;
    }
  CHECK(wrong == 0);
  launch(ebb::Identity{}, y);
  CHECK(std::memcmp(on_host(y).data(), found.data(), found.size() * sizeof(T)) == 0);

  const auto residual = random_values<T>(c.offset + c.m * y_stride, seed + 3);
  const auto bias = random_values<float>(c.n, seed + 4);
  const auto device_bias = on_device(bias);
  const auto in_place = on_device(residual);
  const Matrix<T> target(in_place.data() + c.offset, c.m, c.n, y_stride);
  launch(ebb::chain(ebb::Bias{device_bias.data()}, ebb::Residual{target}), in_place);
  const auto sums = on_host(in_place);
  std::vector<T> samples;
  std::vector<double> expected;
  std::size_t touched = 0;
  for (std::size_t row = 0; row < c.m; row += step)
    for (std::size_t column = 0; column < y_stride; ++column) {
      const std::size_t i = c.offset + row * y_stride + column;
      if (column < c.n) {
        samples.push_back(sums[i]);
        expected.push_back(static_cast<double>(reference(row, column)) + static_cast<double>(bias[column]) +
                           static_cast<double>(static_cast<float>(residual[i])));
      } else {
        touched += std::memcmp(&sums[i], &residual[i], sizeof(T)) != 0;
      }
    }
  CHECK(relative_error(samples, expected) <= largest_error<T>);
  CHECK(touched == 0);
}

}  // namespace

TEST_CASE_TEMPLATE("int8_linear equals the plain arithmetic bit for bit", T, float, ebb::bfloat16, ebb::float16) {
  unsigned seed = 1;
  for (const Case& c : {Case{1, 1, 1, 0}, Case{1, 64, 16, 1}, Case{3, 5, 7, 7}, Case{65, 70, 48, 3},
                        Case{17, 130, 33, 33}, Case{128, 64, 272, 40}, Case{64, 67, 700, 3}, Case{5, 66, 1600, 70}}) {
    check_case<T>(c, 1, seed += 10);
    Case other = c;
    other.padding = 16;
    check_case<T>(other, 1, seed += 10);
    other.offset = 1;
    check_case<T>(other, 1, seed += 10);
    other.threshold = 0.0f;
    check_case<T>(other, 1, seed += 10);
  }
}

TEST_CASE_TEMPLATE("int8_linear equals the plain arithmetic where y fills the device", T, float, ebb::bfloat16,
                   ebb::float16) {
  check_case<T>({1669, 1701, 144, 5}, 97, 1000);
  check_case<T>({1669, 1701, 80, 50}, 97, 2000);
}

TEST_CASE("int8_linear of depth zero is the epilogue of zero; it refuses what does not fit together") {
  const DeviceBuffer<std::byte> workspace(ebb::cuda::int8_linear_workspace_bytes(3, 0));
  const auto bias = random_values<float>(70, 1);
  const auto device_bias = on_device(bias);
  const auto y = poisoned<float>(3 * 70);
  const auto launch = [&](Matrix<const float> x, Matrix<float> out) {
    return ebb::cuda::launch_int8_linear(x, nullptr, device_bias.data(), 6.0f, ebb::Bias{device_bias.data()}, out,
                                         workspace.data(), nullptr);
  };
  check(launch(Matrix<const float>(nullptr, 3, 0), Matrix<float>(y.data(), 3, 70)));
  std::vector<double> expected;
  for (std::size_t i = 0; i < 3 * 70; ++i) expected.push_back(static_cast<double>(bias[i % 70]));
  CHECK(relative_error(on_host(y), expected) == 0.0);
  CHECK(launch(Matrix<const float>(nullptr, 0, 8), Matrix<float>(nullptr, 0, 70)) == cudaSuccess);
  CHECK(launch(Matrix<const float>(nullptr, 2, 0), Matrix<float>(y.data(), 3, 70)) == cudaErrorInvalidValue);
  CHECK(launch(Matrix<const float>(nullptr, 3, 200000), Matrix<float>(y.data(), 3, 70)) == cudaErrorInvalidValue);
}
