// RMSNorm over the hidden width. A row stays in registers between the sum of squares and the
// scaling, so each element is read and written once. With many rows a warp takes a row, with few a
// block, for a shorter way through; both add in the same order: the eight squares of a vector, then
// the vectors of a lane, then the lanes.

#include "common/check.hpp"
#include "kernels/cuda/cuda_check.hpp"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/vector.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kRowsPerBlock = 4;
constexpr std::int64_t kFewRows = 128;
constexpr int kWarpsMax = 32;  // of a block that takes one row: 8192 elements

__device__ float square_sum(const Bf16x8& packed) {
  float values[kVectorWidth];
  to_float(packed, values);
  float sum = 0;
#pragma unroll
  for (float value : values) {
    sum = fmaf(value, value, sum);
  }
  return sum;
}

__device__ float row_scale(float lane_sum, int vectors, float eps) {
  const float width = static_cast<float>(vectors * kVectorWidth);
  return rsqrtf(group_sum<32>(lane_sum) / width + eps);
}

__device__ Bf16x8 scaled(const Bf16x8& packed, float scale, const float (&weights)[kVectorWidth]) {
  float values[kVectorWidth];
  to_float(packed, values);
#pragma unroll
  for (int j = 0; j < kVectorWidth; ++j) {
    values[j] *= scale * weights[j];
  }
  return to_bf16(values);
}

// kVectors: 16-byte vectors a lane holds; a row has at most 32 * kVectors of them.
template <int kVectors>
__global__ void rms_norm_kernel(Bf16x8* out, const Bf16x8* x, const float* weight,
                                std::int64_t rows, int vectors, float eps) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const std::int64_t row = std::int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (row >= rows) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x);
  const Bf16x8* source = x + row * vectors;
  Bf16x8 held[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (lane + 32 * i < vectors) {
      held[i] = source[lane + 32 * i];
    }
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (lane + 32 * i < vectors) {
      sum += square_sum(held[i]);
    }
  }
  const float scale = row_scale(sum, vectors, eps);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = lane + 32 * i;
    if (at < vectors) {
      float weights[kVectorWidth];
      load_floats(weight + at * kVectorWidth, weights);
      out[row * vectors + at] = scaled(held[i], scale, weights);
    }
  }
}

// One row a block, one vector a thread.
__global__ void rms_norm_row_kernel(Bf16x8* out, const Bf16x8* x, const float* weight, int vectors,
                                    float eps) {
  __shared__ float sums[kWarpsMax][32];
  allow_next_kernel();
  const int at = static_cast<int>(threadIdx.y * 32 + threadIdx.x);
  const bool present = at < vectors;
  float weights[kVectorWidth] = {};
  if (present) {
    load_floats(weight + at * kVectorWidth, weights);  // never written: need not wait
  }
  wait_for_previous_kernel();
  const std::int64_t row = blockIdx.x;
  Bf16x8 held{};
  if (present) {
    held = x[row * vectors + at];
  }
  sums[threadIdx.y][threadIdx.x] = present ? square_sum(held) : 0.0F;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < blockDim.y; ++i) {
    sum += sums[i][threadIdx.x];
  }
  const float scale = row_scale(sum, vectors, eps);
  if (present) {
    out[row * vectors + at] = scaled(held, scale, weights);
  }
}

}  // namespace

void launch_rms_norm(Bf16* out, const Bf16* x, const float* weight, std::int64_t rows,
                     std::int64_t hidden, float eps, cudaStream_t stream) {
  CHECK(hidden % kVectorWidth == 0 && hidden <= 8192);
  if (rows == 0) {
    return;
  }
  const int vectors = static_cast<int>(hidden / kVectorWidth);
  auto* to = reinterpret_cast<Bf16x8*>(out);
  const auto* from = reinterpret_cast<const Bf16x8*>(x);
  if (rows <= kFewRows) {
    const auto warps = static_cast<unsigned>((vectors + 31) / 32);
    launch_dependent(rms_norm_row_kernel, dim3(static_cast<unsigned>(rows)), dim3(32, warps), 0,
                     stream, to, from, weight, vectors, eps);
    return;
  }
  const auto launch = [&](auto kernel) {
    const auto blocks = static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
    launch_dependent(kernel, dim3(blocks), dim3(32, kRowsPerBlock), 0, stream, to, from, weight,
                     rows, vectors, eps);
  };
  // 1024, 2560 and 4096 are the widths of the three model sizes.
  if (vectors <= 32 * 2) {
    launch(rms_norm_kernel<2>);
  } else if (vectors <= 32 * 4) {
    launch(rms_norm_kernel<4>);
  } else if (vectors <= 32 * 10) {
    launch(rms_norm_kernel<10>);
  } else if (vectors <= 32 * 16) {
    launch(rms_norm_kernel<16>);
  } else {
    launch(rms_norm_kernel<32>);
  }
}

}  // namespace tessera::kernels::cuda
