// Attention of one query per sequence, for the last layer: bound by one read of K and V. A block
// takes one kv head of one sequence and up to four query heads that share it. Sixteen lanes hold
// one key's 128 dimensions in 16-byte loads; each half warp walks its own keys with an online
// softmax, and the partial results are merged in a fixed order at the end. The split depends on the
// sequence alone, so neighbours in the batch change no bit.

#include "common/check.hpp"
#include "kernels/cuda/attention/last_attention.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kLanesPerKey = 16;
constexpr int kWalkers = kWarps * 32 / kLanesPerKey;  // half warps
constexpr int kMaxGroup = 4;                          // query heads of one block
constexpr float kScaleLog2 = 0.08838834764831845F * 1.4426950408889634F;  // 1/sqrt(128) * log2(e)

struct Partial {
  float maximum[kWalkers][kMaxGroup];
  float sum[kWalkers][kMaxGroup];
  float value[kWalkers][kMaxGroup][kHeadDim];
};

// Online softmax of one half warp over every kWalkers-th key, for kGroup query heads.
template <int kGroup>
struct Walker {
  float query[kGroup][kVectorWidth];
  float maximum[kGroup];
  float sum[kGroup];
  float value[kGroup][kVectorWidth];

  __device__ void start(const Bf16* q, int part) {
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      to_float(reinterpret_cast<const Bf16x8*>(q + g * kHeadDim)[part], query[g]);
      maximum[g] = -INFINITY;
      sum[g] = 0;
#pragma unroll
      for (int i = 0; i < kVectorWidth; ++i) {
        query[g][i] *= kScaleLog2;
        value[g][i] = 0;
      }
    }
  }

  // `present` is the same in all lanes of a half warp; absent keys weigh nothing.
  __device__ void take(const Bf16x8& packed_key, const Bf16x8& packed_value, bool present) {
    float k[kVectorWidth];
    float v[kVectorWidth];
    to_float(packed_key, k);
    to_float(packed_value, v);
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      float dot = 0;
#pragma unroll
      for (int i = 0; i < kVectorWidth; ++i) {
        dot = fmaf(query[g][i], k[i], dot);
      }
      dot = group_sum<kLanesPerKey>(dot);
      if (present) {
        const float larger = fmaxf(maximum[g], dot);
        const float shrink = exp2f(maximum[g] - larger);
        const float weight = exp2f(dot - larger);
        maximum[g] = larger;
        sum[g] = fmaf(sum[g], shrink, weight);
#pragma unroll
        for (int i = 0; i < kVectorWidth; ++i) {
          value[g][i] = fmaf(value[g][i], shrink, weight * v[i]);
        }
      }
    }
  }
};

template <int kGroup>
__device__ void merge_and_store(const Partial& partial, Bf16* out) {
  for (int at = static_cast<int>(threadIdx.x); at < kGroup * kHeadDim; at += kWarps * 32) {
    const int g = at / kHeadDim;
    const int dim = at % kHeadDim;
    float maximum = -INFINITY;
    for (int w = 0; w < kWalkers; ++w) {
      maximum = fmaxf(maximum, partial.maximum[w][g]);
    }
    float sum = 0;
    float value = 0;
    for (int w = 0; w < kWalkers; ++w) {
      if (partial.sum[w][g] > 0) {
        const float factor = exp2f(partial.maximum[w][g] - maximum);
        sum = fmaf(partial.sum[w][g], factor, sum);
        value = fmaf(partial.value[w][g][dim], factor, value);
      }
    }
    out[at] = __float2bfloat16(sum == 0 ? 0 : value / sum);
  }
}

template <int kGroup>
__global__ void __launch_bounds__(kWarps * 32) last_attention_kernel(LastAttentionArguments a) {
  __shared__ Partial partial;
  allow_next_kernel();
  wait_for_previous_kernel();
  const int sequence = static_cast<int>(blockIdx.x);
  const int q_head = static_cast<int>(blockIdx.y) * kGroup;
  const int kv_head = q_head / (a.num_q / a.num_kv);
  const std::int64_t first = a.first_keys[sequence];
  const int keys = a.num_keys[sequence];
  const int walker = static_cast<int>(threadIdx.x) / kLanesPerKey;
  const int part = static_cast<int>(threadIdx.x) % kLanesPerKey;
  const std::int64_t stride = std::int64_t{2} * a.num_kv * kHeadDim / kVectorWidth;
  const auto* k =
      reinterpret_cast<const Bf16x8*>(a.kv + kv_head * kHeadDim) + first * stride + part;
  const auto* v = k + a.num_kv * kHeadDim / kVectorWidth;
  const std::int64_t query = (std::int64_t{sequence} * a.num_q + q_head) * kHeadDim;

  Walker<kGroup> state;
  state.start(a.q + query, part);
  constexpr int kUnroll = 4;
  for (int key = walker; key - walker < keys; key += kWalkers * kUnroll) {
    Bf16x8 loaded_k[kUnroll];
    Bf16x8 loaded_v[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const std::int64_t row = min(key + i * kWalkers, keys - 1);
      loaded_k[i] = k[row * stride];
      loaded_v[i] = v[row * stride];
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      state.take(loaded_k[i], loaded_v[i], key + i * kWalkers < keys);
    }
  }
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    partial.maximum[walker][g] = state.maximum[g];
    partial.sum[walker][g] = state.sum[g];
#pragma unroll
    for (int i = 0; i < kVectorWidth; ++i) {
      partial.value[walker][g][part * kVectorWidth + i] = state.value[g][i];
    }
  }
  __syncthreads();
  merge_and_store<kGroup>(partial, a.out + query);
}

}  // namespace

void launch_last_attention(const LastAttentionArguments& arguments, cudaStream_t stream) {
  CHECK(arguments.num_kv > 0 && arguments.num_q % arguments.num_kv == 0);
  if (arguments.num_sequences == 0) {
    return;
  }
  const int group = arguments.num_q / arguments.num_kv;
  const auto launch = [&](auto kernel, int heads_per_block) {
    const dim3 grid(static_cast<unsigned>(arguments.num_sequences),
                    static_cast<unsigned>(arguments.num_q / heads_per_block));
    launch_dependent(kernel, grid, dim3(kWarps * 32), 0, stream, arguments);
  };
  if (group % 4 == 0) {
    launch(last_attention_kernel<4>, 4);
  } else if (group % 2 == 0) {
    launch(last_attention_kernel<2>, 2);
  } else {
    launch(last_attention_kernel<1>, 1);
  }
}

}  // namespace tessera::kernels::cuda
