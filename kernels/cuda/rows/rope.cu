// RMSNorm of each q and k head followed by half-rotation RoPE, in place, and the row's scale for
// each v head. Eight lanes hold one head:
// lane j has dimensions 8j .. 8j+7 and their partners 64 higher, so the rotation needs no exchange
// and every access is 16 bytes. A warp takes eight heads of one token and loads the token's
// cosines and sines once; all its loads are in flight before the first use.
// Formulas: RoFormer (arXiv 2104.09864) in the half-split form of the Qwen3 checkpoints.

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"
#include "kernels/cuda/rows/row_math.cuh"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kLanesPerHead = 8;
constexpr int kHeadsAtOnce = 32 / kLanesPerHead;
constexpr int kRounds = 2;
constexpr int kHeadsPerWarp = kHeadsAtOnce * kRounds;
constexpr int kWarpsPerBlock = 8;
constexpr int kHalf = kHeadDim / 2;

__global__ void rope_table_kernel(float* table, std::int64_t positions, double theta) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= positions * kHalf) {
    return;
  }
  const std::int64_t position = at / kHalf;
  const int i = static_cast<int>(at % kHalf);
  const double angle = static_cast<double>(position) * pow(theta, -2.0 * i / kHeadDim);
  table[position * kHeadDim + i] = static_cast<float>(cos(angle));
  table[position * kHeadDim + kHalf + i] = static_cast<float>(sin(angle));
}

// Lane `part` of a head's eight has the partial sums [t][part]. Each step adds pairs and halves
// what a lane holds; the last two add over t.
__device__ float square_sum(const float (&a)[kVectorWidth], const float (&b)[kVectorWidth],
                            int part) {
  float sums[4];
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    sums[t] = partial_square_sum(a[2 * t], a[2 * t + 1], b[2 * t], b[2 * t + 1]);
  }
  const bool odd = part & 1;
  const float first =
      __fadd_rn(odd ? sums[2] : sums[0], __shfl_xor_sync(kAllLanes, odd ? sums[0] : sums[2], 1));
  const float second =
      __fadd_rn(odd ? sums[3] : sums[1], __shfl_xor_sync(kAllLanes, odd ? sums[1] : sums[3], 1));
  const bool upper = part & 2;
  float sum =
      __fadd_rn(upper ? second : first, __shfl_xor_sync(kAllLanes, upper ? first : second, 2));
  sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, 4));
  sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, 2));
  return __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, 1));
}

__device__ void norm_and_rotate(Bf16x8& first, Bf16x8& second, const float* norm, float eps,
                                float m, const float (&cosine)[kVectorWidth],
                                const float (&sine)[kVectorWidth], int part) {
  float a[kVectorWidth];
  float b[kVectorWidth];
  float weight_a[kVectorWidth];
  float weight_b[kVectorWidth];
  to_float(first, a);
  to_float(second, b);
  load_floats(norm + part * kVectorWidth, weight_a);
  load_floats(norm + kHalf + part * kVectorWidth, weight_b);
  const float scale = head_scale(square_sum(a, b, part), eps, m);
#pragma unroll
  for (int i = 0; i < kVectorWidth; ++i) {
    norm_and_rotate_pair(a[i], b[i], scale, weight_a[i], weight_b[i], cosine[i], sine[i]);
  }
  first = to_bf16(a);
  second = to_bf16(b);
}

__device__ Bf16x8 scaled(const Bf16x8& packed, float scale) {
  float values[kVectorWidth];
  to_float(packed, values);
#pragma unroll
  for (float& value : values) value = __fmul_rn(value, scale);
  return to_bf16(values);
}

__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    qk_norm_rope_kernel(QkNormRopeArguments arguments, int warps_per_row) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const std::int64_t warp = std::int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.y;
  const std::int64_t row = warp / warps_per_row;
  if (row >= arguments.rows) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x);
  const int part = lane % kLanesPerHead;
  const int rotated = arguments.num_q + arguments.num_k;
  const int num_heads = rotated + arguments.num_v;
  const int first_head =
      static_cast<int>(warp % warps_per_row) * kHeadsPerWarp + lane / kLanesPerHead;
  auto* heads = reinterpret_cast<Bf16x8*>(arguments.heads + row * arguments.row_stride);

  Bf16x8 low[kRounds];
  Bf16x8 high[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    // Lanes without a head work on a copy of the last one, so that the warp stays whole.
    const int head = min(first_head + round * kHeadsAtOnce, num_heads - 1);
    const int at = head * (kHeadDim / kVectorWidth) + part;
    low[round] = heads[at];
    high[round] = heads[at + kHalf / kVectorWidth];
  }
  const float* angles = arguments.rope_table + std::int64_t{arguments.positions[row]} * kHeadDim;
  const float m = arguments.mean_squares[row];
  float cosine[kVectorWidth];
  float sine[kVectorWidth];
  load_floats(angles + part * kVectorWidth, cosine);
  load_floats(angles + kHalf + part * kVectorWidth, sine);
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int head = first_head + round * kHeadsAtOnce;
    const float* norm = head < arguments.num_q ? arguments.q_norm : arguments.k_norm;
    // Of the whole warp: it exchanges sums.
    Bf16x8 first = low[round], second = high[round];
    norm_and_rotate(first, second, norm, arguments.eps, m, cosine, sine, part);
    const bool rotate = head < rotated;
    low[round] = rotate ? first : scaled(low[round], row_scale(m));
    high[round] = rotate ? second : scaled(high[round], row_scale(m));
    if (head < num_heads) {
      const int at = head * (kHeadDim / kVectorWidth) + part;
      heads[at] = low[round];
      heads[at + kHalf / kVectorWidth] = high[round];
    }
  }
}

}  // namespace

void launch_rope_table(float* table, std::int64_t positions, double theta, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((positions * kHalf + kThreads - 1) / kThreads);
  rope_table_kernel<<<blocks, kThreads, 0, stream>>>(table, positions, theta);
  check_launch();
}

void launch_qk_norm_rope(const QkNormRopeArguments& arguments, cudaStream_t stream) {
  const int num_heads = arguments.num_q + arguments.num_k + arguments.num_v;
  CHECK(num_heads > 0 && arguments.mean_squares != nullptr &&
        arguments.row_stride % kVectorWidth == 0);
  if (arguments.rows == 0) {
    return;
  }
  // Unused norms still need an address: lanes without a head of their kind read one.
  QkNormRopeArguments complete = arguments;
  complete.q_norm = arguments.num_q > 0 ? arguments.q_norm : arguments.k_norm;
  complete.k_norm = arguments.num_k > 0 ? arguments.k_norm : arguments.q_norm;
  const int warps_per_row = (num_heads + kHeadsPerWarp - 1) / kHeadsPerWarp;
  const std::int64_t warps = arguments.rows * warps_per_row;
  const auto blocks = static_cast<unsigned>((warps + kWarpsPerBlock - 1) / kWarpsPerBlock);
  launch_dependent(qk_norm_rope_kernel, dim3(blocks), dim3(32, kWarpsPerBlock), 0, stream, complete,
                   warps_per_row);
}

}  // namespace tessera::kernels::cuda
