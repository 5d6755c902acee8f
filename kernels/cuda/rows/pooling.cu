// The last step of a batch: final RMSNorm and L2 normalisation of each last token in float32, and a
// flag that says whether the vector may leave. A block holds one row; the RMS scale cancels in the
// unit vector only up to eps, so both sums are taken.

#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 128;

__device__ float block_sum(float value) {
  __shared__ float partial[kThreads / 32];
  value = group_sum<32>(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = value;
  }
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (float part : partial) {
    sum += part;
  }
  return sum;
}

__global__ void pool_kernel(float* vectors, std::uint8_t* finite, const Bf16* x,
                            const float* weight, int hidden, float eps, bool unit) {
  wait_for_previous_kernel();
  const std::int64_t row = blockIdx.x;
  const Bf16* source = x + row * hidden;
  float* target = vectors + row * hidden;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < hidden; i += kThreads) {
    const float value = __bfloat162float(source[i]);
    sum = fmaf(value, value, sum);
  }
  const float scale = rsqrtf(block_sum(sum) / static_cast<float>(hidden) + eps);
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < hidden; i += kThreads) {
    const float value = __bfloat162float(source[i]) * scale * weight[i];
    squares = fmaf(value, value, squares);
    target[i] = value;
  }
  // A NaN or Inf in any element makes the sum NaN or Inf, so one test covers the row.
  squares = block_sum(squares);
  const float inverse = rsqrtf(squares);
  for (int i = static_cast<int>(threadIdx.x); unit && i < hidden; i += kThreads) {
    target[i] *= inverse;
  }
  if (threadIdx.x == 0) {
    finite[row] = isfinite(squares) && isfinite(inverse) && squares > 0 ? 1 : 0;
  }
}

}  // namespace

void launch_pool(float* vectors, std::uint8_t* finite, const Bf16* x, const float* weight,
                 std::int64_t rows, std::int64_t hidden, float eps, bool unit,
                 cudaStream_t stream) {
  if (rows == 0) {
    return;
  }
  launch_dependent(pool_kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream,
                   vectors, finite, x, weight, static_cast<int>(hidden), eps, unit);
}

}  // namespace tessera::kernels::cuda
