#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/initialized.hpp"
#include "ebb/cuda/resource.hpp"
#include "ebb/cuda/tuned.hpp"

namespace ebb::cuda {

/// A call of cuBLASLt that failed.
struct BlasError : Error {
  BlasError(const std::string& message, bool memory) : Error(message), out_of_memory(memory) {}
  bool out_of_memory;  // of the device
};

/// @throws BlasError that says what to do where memory ran out
inline void check_blas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string message = concat(call, ": ", cublasLtGetStatusString(status));
  std::size_t free = 0;
  std::size_t total = 0;
  const bool known = cudaMemGetInfo(&free, &total) == cudaSuccess;
  (void)cudaGetLastError();
  // What a handle allocates inside, it may report as not initialized: with so little left, memory is the reason.
  constexpr std::size_t little = std::size_t{64} << 20;
  const bool memory =
      status == CUBLAS_STATUS_ALLOC_FAILED || (status == CUBLAS_STATUS_NOT_INITIALIZED && known && free < little);
  if (!memory) throw BlasError(message, false);
  throw BlasError(concat(message, "; the device has too little free memory",
                         known ? concat(" (", free, " of ", total, " bytes)") : "",
                         ": free what other processes hold (see nvidia-smi), or keep fewer weights on it (--offload)"),
                  true);
}

/// What cuBLASLt fuses behind a product.
enum class BlasEpilogue { none, bias, gelu, bias_gelu };

/// Products of dense matrices by cuBLASLt on the current device. Remembers for each shape which algorithm was chosen,
/// so that only the first product of a shape asks: cuBLASLt's heuristic, or, with `tune`, the measured time of what
/// that proposes. Not thread-safe: one a stream.
class Blas {
 public:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  /// @throws BlasError, CudaError
  Blas() : workspace_(workspace_bytes) { check_blas(cublasLtCreate(&handle_), "cublasLtCreate"); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  ~Blas() {
    plans_.clear();
    cublasLtDestroy(handle_);
  }

  /// From now on the first product of a shape takes the algorithm that `store` names, or runs every proposed one a few
  /// times and leaves the fastest there. `store` outlives this. Equal stores make equal results, bit by bit; products
  /// that are first seen while the stream is captured are not measured.
  void tune(TunedAlgorithms& store) {
    tuned_ = &store;
    cudaDeviceProp properties{};
    int device = 0;
    check(cudaGetDevice(&device));
    check(cudaGetDeviceProperties(&properties, device));
    environment_ = concat(properties.name, ", ", properties.multiProcessorCount, " multiprocessors, cuBLASLt ",
                          cublasLtGetVersion());
  }

  /// y = epilogue(x weight^T) [+ residual], accumulated in float32 (for float without TF32) and rounded once.
  ///
  /// @param x      [M, K], weight [N, K], y [M, N]; rows may be strided; y overlaps neither
  /// @param bias   [N], for an epilogue with a bias, else not read
  /// @param residual [M, N] with y's stride, may be y; null: none
  /// @return false where cuBLASLt has no algorithm for the arguments: nothing was issued
  /// @throws BlasError
  template <Element T>
  bool multiply(std::type_identity_t<Matrix<const T>> x, std::type_identity_t<Matrix<const T>> weight,
                BlasEpilogue epilogue, const T* bias, const T* residual, Matrix<T> y, cudaStream_t stream) {
    const Key key{x.rows,
                  weight.rows,
                  x.columns,
                  x.stride,
                  weight.stride,
                  y.stride,
                  static_cast<std::size_t>(type_of<T>),
                  static_cast<std::size_t>(epilogue) * 2 + (residual != nullptr),
                  alignment(x.data) << 32 | alignment(weight.data) << 16 |
                      (residual != nullptr ? std::min(alignment(y.data), alignment(residual)) : alignment(y.data))};
    auto at = plans_.find(key);
    if (at == plans_.end()) {
      std::vector<cublasLtMatmulAlgo_t> proposed;
      std::optional<Plan> plan = plan_of<T>(key, epilogue, proposed);
      if (plan) {
        if (tuned_ != nullptr) {
          point_to_bias(*plan, epilogue, bias);
          choose(*plan, key, proposed, x, weight, residual, y, stream);
        } else {
          plan->algorithm = proposed.front();
        }
      }
      at = plans_.emplace(key, std::move(plan)).first;  // only now: a choice that failed is made anew
    }
    if (!at->second) return false;
    point_to_bias(*at->second, epilogue, bias);
    check_blas(run(*at->second, x, weight, residual, y, stream), "cublasLtMatmul");
    if (y.size() > 0)
      mark_initialized(y.data, ((y.rows - 1) * y.stride + y.columns) * sizeof(T),
                       stream);  // what lies between rows too
    return true;
  }

 private:
  using Key = std::array<std::size_t, 9>;

  template <auto destroy>
  struct Destroy {
    template <class Opaque>
    void operator()(Opaque* handle) const noexcept {
      destroy(handle);
    }
  };
  using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDescDestroy>>;
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayoutDestroy>>;
  using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroy<cublasLtMatmulPreferenceDestroy>>;

  struct Plan {
    Operation operation;
    Layout weight, x, y;
    cublasLtMatmulAlgo_t algorithm{};
  };

  template <class T>
  static constexpr cudaDataType_t type_of = dtype_of<T> == DType::f32    ? CUDA_R_32F
                                            : dtype_of<T> == DType::bf16 ? CUDA_R_16BF
                                                                         : CUDA_R_16F;

  /// Bytes that an address is aligned to, at most 256.
  static std::size_t alignment(const void* pointer) {
    return std::size_t{1} << std::countr_zero(reinterpret_cast<std::uintptr_t>(pointer) | 256u);
  }

  template <class T>
  static void point_to_bias(const Plan& plan, BlasEpilogue epilogue, const T* bias) {
    if (epilogue == BlasEpilogue::bias || epilogue == BlasEpilogue::bias_gelu)
      check_blas(
          cublasLtMatmulDescSetAttribute(plan.operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)),
          "cublasLtMatmulDescSetAttribute");
  }

  template <class T>
  cublasStatus_t run(const Plan& plan, const Matrix<const T>& x, const Matrix<const T>& weight, const T* residual,
                     const Matrix<T>& y, cudaStream_t stream) const {
    const float one = 1.0f;
    const float beta = residual != nullptr ? 1.0f : 0.0f;
    // Row-major y [M, N] is the column-major transpose: its columns are rows of y.
    return cublasLtMatmul(handle_, plan.operation.get(), &one, weight.data, plan.weight.get(), x.data, plan.x.get(),
                          &beta, residual != nullptr ? residual : y.data, plan.y.get(), y.data, plan.y.get(),
                          &plan.algorithm, workspace_.data(), workspace_bytes, stream);
  }

  /// Settles a plan's algorithm by what is stored, or by what is fastest.
  template <class T>
  void choose(Plan& plan, const Key& key, const std::vector<cublasLtMatmulAlgo_t>& proposed, const Matrix<const T>& x,
              const Matrix<const T>& weight, const T* residual, const Matrix<T>& y, cudaStream_t stream) {
    std::string name;
    for (const std::size_t part : key) name += concat(name.empty() ? "" : " ", part);
    static_assert(sizeof(TunedAlgorithms::Description) == sizeof(cublasLtMatmulAlgo_t));
    if (const auto stored = tuned_->find(environment_, name)) {
      plan.algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(stored->algorithm);
      cublasLtMatmulHeuristicResult_t result{};
      if (cublasLtMatmulAlgoCheck(handle_, plan.operation.get(), plan.weight.get(), plan.x.get(), plan.y.get(),
                                  plan.y.get(), &plan.algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
          result.workspaceSize <= workspace_bytes)
        return;
    }
    plan.algorithm = proposed.front();
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &capture));
    if (capture != cudaStreamCaptureStatusNone) return;
    // A residual may be y itself, which the trials must leave as it is.
    DeviceBuffer<T> scratch(residual != nullptr ? y.rows * y.stride : 0);
    const Matrix<T> target(residual != nullptr ? scratch.data() : y.data, y.rows, y.columns, y.stride);
    TunedAlgorithms::Choice best{.microseconds = std::numeric_limits<double>::infinity()};
    const Timer timer;
    for (const cublasLtMatmulAlgo_t& algorithm : proposed) {
      plan.algorithm = algorithm;
      if (run(plan, x, weight, residual, target, stream) != CUBLAS_STATUS_SUCCESS) continue;  // also warms up
      constexpr int trials = 5;
      timer.start(stream);
      for (int trial = 0; trial < trials; ++trial)
        check_blas(run(plan, x, weight, residual, target, stream), "cublasLtMatmul");
      const double microseconds = timer.stop(stream) / trials;
      if (microseconds < best.microseconds)
        best = {std::bit_cast<TunedAlgorithms::Description>(algorithm), microseconds};
    }
    require(best.microseconds < std::numeric_limits<double>::infinity(), "cuBLASLt: no proposed algorithm runs");
    plan.algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(best.algorithm);
    tuned_->keep(environment_, name, best);
  }

  /// Time between two points of a stream.
  class Timer {
   public:
    Timer() {
      check(cudaEventCreate(&begin_));
      check(cudaEventCreate(&end_));
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    ~Timer() {
      cudaEventDestroy(begin_);
      cudaEventDestroy(end_);
    }
    void start(cudaStream_t stream) const { check(cudaEventRecord(begin_, stream)); }
    /// Microseconds since `start`; waits for the stream.
    double stop(cudaStream_t stream) const {
      check(cudaEventRecord(end_, stream));
      check(cudaEventSynchronize(end_));
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin_, end_));
      return 1000.0 * static_cast<double>(milliseconds);
    }

   private:
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
  };

  /// What does not depend on the algorithm, and the algorithms that cuBLASLt proposes, its favourite first.
  template <class T>
  std::optional<Plan> plan_of(const Key& key, BlasEpilogue epilogue,
                              std::vector<cublasLtMatmulAlgo_t>& proposed) const {
    const auto [m, n, k, x_stride, weight_stride, y_stride, type, fused, alignments] = key;
    (void)type;
    (void)fused;
    Plan plan;
    cublasLtMatmulDesc_t operation = nullptr;
    check_blas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    plan.operation.reset(operation);
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      check_blas(cublasLtMatmulDescSetAttribute(plan.operation.get(), attribute, &value, sizeof(value)),
                 "cublasLtMatmulDescSetAttribute");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    const cublasLtEpilogue_t kind = epilogue == BlasEpilogue::bias        ? CUBLASLT_EPILOGUE_BIAS
                                    : epilogue == BlasEpilogue::gelu      ? CUBLASLT_EPILOGUE_GELU
                                    : epilogue == BlasEpilogue::bias_gelu ? CUBLASLT_EPILOGUE_GELU_BIAS
                                                                          : CUBLASLT_EPILOGUE_DEFAULT;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, kind);
    if (epilogue == BlasEpilogue::bias || epilogue == BlasEpilogue::bias_gelu)
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of<T>);
    const auto layout = [](std::size_t rows, std::size_t columns, std::size_t stride) {
      cublasLtMatrixLayout_t created = nullptr;
      check_blas(cublasLtMatrixLayoutCreate(&created, type_of<T>, rows, columns, static_cast<std::int64_t>(stride)),
                 "cublasLtMatrixLayoutCreate");
      return Layout(created);
    };
    plan.weight = layout(k, n, weight_stride);
    plan.x = layout(k, m, x_stride);
    plan.y = layout(n, m, y_stride);
    cublasLtMatmulPreference_t preferred = nullptr;
    check_blas(cublasLtMatmulPreferenceCreate(&preferred), "cublasLtMatmulPreferenceCreate");
    const Preference preference(preferred);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check_blas(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)),
                 "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    // Parts of a divided sum stay float32: the other schemes round each to T, so that y depends on how K was divided.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    const auto aligned = [&](unsigned shift) { return static_cast<std::uint32_t>(alignments >> shift & 0xffff); };
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned(16));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned(32));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned(0));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned(0));
    std::array<cublasLtMatmulHeuristicResult_t, 16> found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, plan.operation.get(), plan.weight.get(), plan.x.get(), plan.y.get(), plan.y.get(), preference.get(),
        tuned_ != nullptr ? static_cast<int>(found.size()) : 1, found.data(), &count);
    if (status == CUBLAS_STATUS_SUCCESS)
      for (int i = 0; i < count; ++i)
        if (found[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
          proposed.push_back(found[static_cast<std::size_t>(i)].algo);
    if (proposed.empty()) return std::nullopt;
    return plan;
  }

  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer<std::byte> workspace_;
  std::map<Key, std::optional<Plan>> plans_;
  TunedAlgorithms* tuned_ = nullptr;
  std::string environment_;  // the GPU and the library
};

}  // namespace ebb::cuda
