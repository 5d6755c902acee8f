#pragma once

// Results of matrix instructions on their way to memory: four lanes hold a row's columns in pairs.

#include <cuda_bf16.h>

#include <cstdint>

namespace tessera::kernels::cuda {

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline float low_of(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_of(std::uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000U); }

// Lane t of each four holds word i of column t; afterwards it holds word t of column i.
__device__ inline void transpose_quad(std::uint32_t (&r)[4], int lane) {
  const bool odd = lane & 1;
  const bool upper = lane & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t received = __shfl_xor_sync(~0U, odd ? r[i] : r[i + 1], 1);
    (odd ? r[i] : r[i + 1]) = received;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t received = __shfl_xor_sync(~0U, upper ? r[i] : r[i + 2], 2);
    (upper ? r[i] : r[i + 2]) = received;
  }
}

}  // namespace tessera::kernels::cuda
