#pragma once

// Arithmetic behind a matrix product, shared by the epilogues of fused products and by the kernels
// that follow a plain one, so that both give the same bits from the same product. Every rounding is
// spelled out; the compiler may contract nothing.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/base/quad.cuh"

namespace tessera::kernels::cuda {

// The sum of squares of a row is that of 4 x 8 partial sums: partial [g][c] covers the pieces
// 8 g + c, 8 g + c + 32, ... of eight elements, added one element after the other. They are added
// over g, (0 + 1) + (2 + 3), then over c, which eight neighbouring lanes hold; any order of those
// that keeps neighbours gives the same bits.
inline constexpr int kSquareLanes = 8;
inline constexpr int kSquareGroups = 4;

__device__ inline float add_squares(float sum, const uint4& piece) {
  const std::uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (const std::uint32_t word : words) {
    const float low = low_of(word), high = high_of(word);
    sum = __fmaf_rn(high, high, __fmaf_rn(low, low, sum));
  }
  return sum;
}

// m = mean(x^2) + eps of the row from the sums over g, to all eight lanes.
__device__ inline float mean_square(float partial, int k, float eps) {
#pragma unroll
  for (int distance = 1; distance < kSquareLanes; distance *= 2) {
    partial = __fadd_rn(partial, __shfl_xor_sync(~0U, partial, distance));
  }
  return __fmaf_rn(partial, __fdiv_rn(1.0F, static_cast<float>(k)), eps);
}

// What a row whose mean square is m is multiplied by.
__device__ inline float row_scale(float m) { return rsqrtf(m); }

// What a plain product would have stored, in pairs.
__device__ inline void round_pair_to_bf16(float& low, float& high) {
  const float2 rounded = __bfloat1622float2(__floats2bfloat162_rn(low, high));
  low = rounded.x;
  high = rounded.y;
}

// SwiGLU of a row that the products took as it was.
__device__ inline float silu_times(float gate, float up, float scale) {
  gate = __fmul_rn(gate, scale);
  up = __fmul_rn(up, scale);
  return __fmul_rn(__fdividef(gate, __fadd_rn(1.0F, __expf(-gate))), up);
}

// The sum of squares of a head of 128 is that of 32 partial sums: partial [t][j], for t < 4 and
// j < 8, covers the dimensions 8 j + 2 t and 8 j + 2 t + 1 and those 64 higher. They are added over
// j as a binary tree, neighbours first, then over t likewise.
__device__ inline float partial_square_sum(float a0, float a1, float b0, float b1) {
  return __fmaf_rn(a0, a0, __fmaf_rn(a1, a1, __fmaf_rn(b0, b0, __fmul_rn(b1, b1))));
}

// m: of the row.
__device__ inline float head_scale(float square_sum, float eps, float m) {
  return rsqrtf(__fmaf_rn(square_sum, 1.0F / 128.0F, __fmul_rn(eps, m)));
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
