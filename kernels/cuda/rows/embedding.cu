// Rows gathered by index: the embedding of each token at the start, the last token of each sequence
// at the end. One warp a row; reads and writes each element once.

#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kRowsPerBlock = 4;

__global__ void gather_kernel(Bf16x8* out, const Bf16x8* from, const std::int32_t* indices,
                              std::int64_t rows, int vectors) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const std::int64_t row = std::int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (row >= rows) {
    return;
  }
  const Bf16x8* source = from + std::int64_t{indices[row]} * vectors;
  Bf16x8* target = out + row * vectors;
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += 32) {
    target[i] = source[i];
  }
}

void launch_gather(Bf16* out, const Bf16* from, const std::int32_t* indices, std::int64_t rows,
                   std::int64_t width, cudaStream_t stream) {
  if (rows == 0) {
    return;
  }
  const auto blocks = static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
  launch_dependent(gather_kernel, dim3(blocks), dim3(32, kRowsPerBlock), 0, stream,
                   reinterpret_cast<Bf16x8*>(out), reinterpret_cast<const Bf16x8*>(from), indices,
                   rows, static_cast<int>(width / kVectorWidth));
}

}  // namespace

void launch_embedding(Bf16* out, const Bf16* table, const std::int32_t* ids, std::int64_t rows,
                      std::int64_t hidden, cudaStream_t stream) {
  launch_gather(out, table, ids, rows, hidden, stream);
}

void launch_gather_rows(Bf16* out, const Bf16* x, const std::int32_t* rows_of_last,
                        std::int64_t count, std::int64_t width, cudaStream_t stream) {
  launch_gather(out, x, rows_of_last, count, width, stream);
}

}  // namespace tessera::kernels::cuda
