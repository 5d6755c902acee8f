// The mean square of each row, for products that normalise their rows behind the sum. Eight lanes
// take a row: lane i the sixteen-byte pieces i, i + 8, ... one after the other, then the lanes are
// added. layers_product.cuh adds in the same order from shared memory, so the bits are the same.

#include "common/check.hpp"
#include "kernels/cuda/cuda_check.hpp"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/epilogue_math.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/vector.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPiecesAtOnce = 8;

__global__ void __launch_bounds__(kThreads)
    mean_squares_kernel(float* out, const uint4* x, std::int64_t rows, int vectors, float eps) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kSquareLanes;
  const int lane = static_cast<int>(threadIdx.x % kSquareLanes);
  // Lanes without a row read the last one, so that the warp stays whole.
  const uint4* from = x + min(row, rows - 1) * vectors;
  float sum = 0;
#pragma unroll kPiecesAtOnce
  for (int i = lane; i < vectors; i += kSquareLanes) sum = add_squares(sum, from[i]);
  const float mean = mean_square(sum, vectors * kVectorWidth, eps);
  if (lane == 0 && row < rows) out[row] = mean;
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
  const auto blocks = static_cast<unsigned>((rows * kSquareLanes + kThreads - 1) / kThreads);
  launch_dependent(mean_squares_kernel, dim3(blocks), dim3(kThreads), 0, stream, out,
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
