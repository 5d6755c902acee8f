// RMSNorm over the hidden width. One warp holds one row in registers between the sum of squares and
// the scaling, so each element is read and written once, and a row's sum has the same order whether
// it is alone or among thousands.

#include "common/check.hpp"
#include "kernels/cuda/cuda_check.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/vector.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kRowsPerBlock = 4;

// kVectors: 16-byte vectors a lane holds; a row has at most 32 * kVectors of them.
template <int kVectors>
__global__ void rms_norm_kernel(Bf16x8* out, const Bf16x8* x, const float* weight,
                                std::int64_t rows, int vectors, float eps) {
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
      float values[kVectorWidth];
      to_float(held[i], values);
#pragma unroll
      for (float value : values) {
        sum = fmaf(value, value, sum);
      }
    }
  }
  const float width = static_cast<float>(vectors * kVectorWidth);
  const float scale = rsqrtf(group_sum<32>(sum) / width + eps);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = lane + 32 * i;
    if (at < vectors) {
      float values[kVectorWidth];
      float weights[kVectorWidth];
      to_float(held[i], values);
      load_floats(weight + at * kVectorWidth, weights);
#pragma unroll
      for (int j = 0; j < kVectorWidth; ++j) {
        values[j] *= scale * weights[j];
      }
      out[row * vectors + at] = to_bf16(values);
    }
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
  const auto launch = [&](auto kernel) {
    const auto blocks = static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
    kernel<<<blocks, dim3(32, kRowsPerBlock), 0, stream>>>(reinterpret_cast<Bf16x8*>(out),
                                                           reinterpret_cast<const Bf16x8*>(x),
                                                           weight, rows, vectors, eps);
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
  check_launch();
}

}  // namespace tessera::kernels::cuda
