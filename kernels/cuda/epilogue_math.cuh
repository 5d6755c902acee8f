#pragma once

// Arithmetic behind a matrix product, shared by the epilogues of fused products and by the kernels
// that follow a plain one, so that both give the same bits from the same product. Every rounding is
// spelled out; the compiler may contract nothing.

#include <cuda_bf16.h>

namespace tessera::kernels::cuda {

// What a plain product would have stored, in pairs.
__device__ inline void round_pair_to_bf16(float& low, float& high) {
  const float2 rounded = __bfloat1622float2(__floats2bfloat162_rn(low, high));
  low = rounded.x;
  high = rounded.y;
}

__device__ inline float silu_times(float gate, float up) {
  return __fmul_rn(__fdividef(gate, __fadd_rn(1.0F, __expf(-gate))), up);
}

// The sum of squares of a head of 128 is that of 32 partial sums: partial [t][j], for t < 4 and
// j < 8, covers the dimensions 8 j + 2 t and 8 j + 2 t + 1 and those 64 higher. They are added over
// j as a binary tree, neighbours first, then over t likewise.
__device__ inline float partial_square_sum(float a0, float a1, float b0, float b1) {
  return __fmaf_rn(a0, a0, __fmaf_rn(a1, a1, __fmaf_rn(b0, b0, __fmul_rn(b1, b1))));
}

__device__ inline float head_scale(float square_sum, float eps) {
  return rsqrtf(__fmaf_rn(square_sum, 1.0F / 128.0F, eps));
}

// Normalises dimensions i and i + 64 and rotates them by the angle.
__device__ inline void norm_and_rotate_pair(float& a, float& b, float scale, float weight_a,
                                            float weight_b, float cosine, float sine) {
  const float x = __fmul_rn(__fmul_rn(a, scale), weight_a);
  const float y = __fmul_rn(__fmul_rn(b, scale), weight_b);
  a = __fmaf_rn(x, cosine, -__fmul_rn(y, sine));
  b = __fmaf_rn(y, cosine, __fmul_rn(x, sine));
}

}  // namespace tessera::kernels::cuda
