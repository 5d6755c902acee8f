// The mean square of each row, for products that normalise their rows behind the sum. A warp takes
// a row, a lane one of its partial sums (see epilogue_math.cuh). layers_product.cuh adds in the
// same order from shared memory, so the bits are the same.

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"
#include "kernels/cuda/rows/row_math.cuh"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = 4;
constexpr int kPiecesAtOnce = 10;
static_assert(kSquareLanes * kSquareGroups == 32);

__global__ void mean_squares_kernel(float* out, const uint4* x, std::int64_t rows, int vectors,
                                    float eps) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const std::int64_t row = std::int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x);
  const uint4* from = x + row * vectors;
  float sum = 0;
#pragma unroll kPiecesAtOnce
  for (int i = lane; i < vectors; i += 32) sum = add_squares(sum, from[i]);
#pragma unroll
  for (int distance = kSquareLanes; distance < 32; distance *= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, distance));
  }
  const float mean = mean_square(sum, vectors * kVectorWidth, eps);
  if (lane == 0) out[row] = mean;
}

// weight[r][c] *= norm[c]
__global__ void scale_columns_kernel(Bf16x8* weight, const float* norm, std::int64_t vectors,
                                     int row_vectors) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; at < vectors;
       at += step) {
    float values[kVectorWidth], factors[kVectorWidth];
    to_float(weight[at], values);
    load_floats(norm + at % row_vectors * kVectorWidth, factors);
#pragma unroll
    for (int i = 0; i < kVectorWidth; ++i) values[i] *= factors[i];
    weight[at] = to_bf16(values);
  }
}

}  // namespace

void launch_mean_squares(float* out, const Bf16* x, std::int64_t rows, std::int64_t hidden,
                         float eps, cudaStream_t stream) {
  CHECK(hidden % kVectorWidth == 0);
  if (rows == 0) return;
  const auto blocks = static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
  launch_dependent(mean_squares_kernel, dim3(blocks), dim3(32, kRowsPerBlock), 0, stream, out,
                   reinterpret_cast<const uint4*>(x), rows, static_cast<int>(hidden / kVectorWidth),
                   eps);
}

void launch_scale_columns(Bf16* weight, const float* norm, std::int64_t rows, std::int64_t cols,
                          cudaStream_t stream) {
  CHECK(cols % kVectorWidth == 0);
  constexpr unsigned kBlocks = 1024;
  scale_columns_kernel<<<kBlocks, kThreads, 0, stream>>>(reinterpret_cast<Bf16x8*>(weight), norm,
                                                         rows * (cols / kVectorWidth),
                                                         static_cast<int>(cols / kVectorWidth));
  check_launch();
}

}  // namespace tessera::kernels::cuda
