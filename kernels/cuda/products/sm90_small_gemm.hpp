#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace tessera::kernels::cuda {

// Matrix products of a few rows on Hopper, bound by one read of the weight: for single queries.
// out = f(in * W^T) with the operands of Gemm. Sums run over k in order, so every row has the bits
// of Gemm's product (and of the kernel behind it).
struct SmallGemmArguments {
  enum class Form : std::uint8_t {
    kStore,   // out [rows, n] = product
    kAdd,     // out [rows, n] += product, which is rounded before the sum is
    kSwiglu,  // out [rows, n / 2] as launch_swiglu has it, rows of the weight being its columns
  };
  Form form = Form::kStore;
  __nv_bfloat16* out = nullptr;
  const __nv_bfloat16* in = nullptr;
  const __nv_bfloat16* weight = nullptr;
  const float* mean_squares = nullptr;  // [rows], for kSwiglu
  std::int64_t rows = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

inline constexpr std::int64_t kSmallGemmRowsMax = 64;
bool small_gemm_supports(int compute_capability, std::int64_t rows, std::int64_t n, std::int64_t k);
// Of more rows in parts of 64. Worth timing where k is long and n short: a large product's tiles
// then leave most SMs without work.
inline constexpr std::int64_t kPartedGemmRowsMax = 128;
bool parted_gemm_supports(int compute_capability, std::int64_t rows, std::int64_t n,
                          std::int64_t k);
void launch_small_gemm(const SmallGemmArguments& arguments, int num_sms, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
