// silu(gate) * up over a product whose gate and up columns alternate in groups of eight: a thread
// reads 32 bytes that lie together and writes 16. Two independent pieces a thread keep enough
// loads in flight for full bandwidth.

#include <limits>

#include "common/check.hpp"
#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"
#include "kernels/cuda/rows/row_math.cuh"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPieces = 2;
constexpr int kBlocksPerSm = 5;
static_assert(kGateUpGroup == kVectorWidth);

__device__ Bf16x8 silu_times_vector(const Bf16x8& gate, const Bf16x8& up, float scale) {
  float g[kVectorWidth];
  float u[kVectorWidth];
  to_float(gate, g);
  to_float(up, u);
#pragma unroll
  for (int i = 0; i < kVectorWidth; ++i) {
    g[i] = silu_times(g[i], u[i], scale);
  }
  return to_bf16(g);
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    swiglu_kernel(Bf16x8* out, const Bf16x8* gate_up, const float* mean_squares, unsigned vectors,
                  unsigned row_vectors) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const unsigned first = blockIdx.x * (kThreads * kPieces) + threadIdx.x;
  Bf16x8 gate[kPieces];
  Bf16x8 up[kPieces];
  float m[kPieces];
  unsigned row = first / row_vectors;
  unsigned column = first - row * row_vectors;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const unsigned at = first + static_cast<unsigned>(i) * kThreads;
    if (at < vectors) {
      gate[i] = gate_up[2 * std::size_t{at}];
      up[i] = gate_up[2 * std::size_t{at} + 1];
      m[i] = mean_squares[row];
    }
    for (column += kThreads; column >= row_vectors; column -= row_vectors) ++row;
  }
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const unsigned at = first + static_cast<unsigned>(i) * kThreads;
    if (at < vectors) {
      out[at] = silu_times_vector(gate[i], up[i], row_scale(m[i]));
    }
  }
}

}  // namespace

void launch_swiglu(Bf16* out, const Bf16* gate_up, const float* mean_squares, std::int64_t rows,
                   std::int64_t intermediate, cudaStream_t stream) {
  CHECK(intermediate % kGateUpGroup == 0 && mean_squares != nullptr);
  const std::int64_t vectors = rows * (intermediate / kVectorWidth);
  CHECK(vectors <= std::numeric_limits<int>::max());
  if (vectors == 0) {
    return;
  }
  constexpr std::int64_t kPerBlock = kThreads * kPieces;
  const auto blocks = static_cast<unsigned>((vectors + kPerBlock - 1) / kPerBlock);
  launch_dependent(swiglu_kernel, dim3(blocks), dim3(kThreads), 0, stream,
                   reinterpret_cast<Bf16x8*>(out), reinterpret_cast<const Bf16x8*>(gate_up),
                   mean_squares, static_cast<unsigned>(vectors),
                   static_cast<unsigned>(intermediate / kVectorWidth));
}

}  // namespace tessera::kernels::cuda
