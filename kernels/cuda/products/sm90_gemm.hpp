#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/products/product.hpp"

namespace tessera::kernels::cuda {

// Matrix products for Hopper whose results are worked on before they leave the registers, so that
// the memory-bound kernel behind the product is saved.

// Whether these kernels take the shape: sm_90, n a multiple of 256, k of 64.
bool fused_gemm_supports(int compute_capability, std::int64_t n, std::int64_t k);

// Any form. kStore is there to compare with other libraries.
void launch_fused_gemm(const Product& product, int num_sms, cudaStream_t stream);

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
void launch_qk_norm_rope_gemm(const Product& product, const HeadNormRope& options, int num_sms,
                              cudaStream_t stream);

}  // namespace tessera::kernels::cuda
