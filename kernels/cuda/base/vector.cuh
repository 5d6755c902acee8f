#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace tessera::kernels::cuda {

// Eight bf16 values, the widest single access of a thread (16 bytes).
struct alignas(16) Bf16x8 {
  __nv_bfloat162 pairs[4];
};
inline constexpr int kVectorWidth = 8;
inline constexpr unsigned kAllLanes = 0xffffffffU;

__device__ inline void to_float(const Bf16x8& packed, float (&values)[kVectorWidth]) {
#pragma unroll
  for (int i = 0; i < kVectorWidth / 2; ++i) {
    const float2 pair = __bfloat1622float2(packed.pairs[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

__device__ inline Bf16x8 to_bf16(const float (&values)[kVectorWidth]) {
  Bf16x8 packed;
#pragma unroll
  for (int i = 0; i < kVectorWidth / 2; ++i) {
    packed.pairs[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
  }
  return packed;
}

__device__ inline void load_floats(const float* from, float (&values)[kVectorWidth]) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

// Sum over aligned groups of kLanes lanes, given to all of them. The order is fixed.
template <int kLanes>
__device__ inline float group_sum(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

}  // namespace tessera::kernels::cuda
