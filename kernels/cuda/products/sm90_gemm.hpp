#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace tessera::kernels::cuda {

// Matrix products for Hopper whose results are worked on before they leave the registers, so that
// the memory-bound kernel behind the product is saved. Same layout as Gemm: out = f(in * W^T), in
// [rows, k], weight [n, k], bf16 with float32 sums. Sums run over k in order and are rounded to
// bf16 before the epilogue, so the result has the bits of Gemm's product with that kernel behind
// it, for every row whatever the number of rows.
struct FusedGemmArguments {
  __nv_bfloat16* out = nullptr;
  const __nv_bfloat16* in = nullptr;
  const __nv_bfloat16* weight = nullptr;
  const float* mean_squares = nullptr;  // [rows], see rows/rows.hpp; not for a plain product
  std::int64_t rows = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

// Whether these kernels take the shape: sm_90, n a multiple of 256, k of 64.
bool fused_gemm_supports(int compute_capability, std::int64_t n, std::int64_t k);

// out [rows, n / 2] as launch_swiglu has it, gate and up rows of the weight alternating in groups
// of kGateUpGroup.
void launch_swiglu_gemm(const FusedGemmArguments& arguments, int num_sms, cudaStream_t stream);

// out [rows, n]: RMSNorm and rotation of the first num_q + num_k heads of width 128, the rows'
// scale for the rest, as launch_qk_norm_rope does it. Both norms must be given.
struct HeadNormRope {
  int num_q = 0;
  int num_k = 0;
  const float* q_norm = nullptr;            // [128]
  const float* k_norm = nullptr;            // [128]
  const std::int32_t* positions = nullptr;  // [rows]
  const float* rope_table = nullptr;        // as launch_rope_table makes it
  float eps = 1e-6F;
};
void launch_qk_norm_rope_gemm(const FusedGemmArguments& arguments, const HeadNormRope& options,
                              int num_sms, cudaStream_t stream);

// out [rows, n] += in * W^T, the product rounded to bf16 before it is added.
void launch_sum_gemm(const FusedGemmArguments& arguments, int num_sms, cudaStream_t stream);

// out [rows, n] = in * W^T, to compare with other libraries.
void launch_plain_gemm(const FusedGemmArguments& arguments, int num_sms, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
