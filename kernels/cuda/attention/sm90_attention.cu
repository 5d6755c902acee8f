// Attention of long sequences on Hopper: wgmma, tensor copies and warp specialisation, after
// FlashAttention-3 (arXiv 2407.08608).
//
// One persistent block an SM. A producer thread walks over the tiles, which it draws from a global
// counter, and keeps the queries of two tiles and two blocks of 128 keys and of values on their
// way. Two warpgroups of 64 rows each compute. Their steps are one endless stream over all blocks
// of all tiles: a step starts S' = Q K^T of the next block, also when that belongs to the next
// tile, then O += P V of the current one, and works on the softmax of S' while the second product
// still runs. Named barriers let the two warpgroups start their products by turns, so that the
// softmax of one runs under the products of the other. Only the first block of a tile lies on the
// diagonal.

#include "common/check.hpp"
#include "kernels/cuda/attention/attention_device.cuh"
#include "kernels/cuda/attention/attention_launch.hpp"
#include "kernels/cuda/attention/sm90_producer.cuh"
#include "kernels/cuda/base/tensor_map.hpp"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_warpgroup.cuh"
#include "kernels/cuda/ptx/sm90_wgmma.cuh"

namespace tessera::kernels::cuda {
namespace {

using namespace attention_sm90;

// Of two rows in each lane: running maximum and sum of this lane's columns.
struct SoftmaxState {
  float maximum[2];
  float sum[2];
};

// Turns scores into probabilities and returns in `correction` what older sums are worth now.
template <int kColumns>
__device__ void online_softmax(float (&s)[16][4], SoftmaxState& state, float (&correction)[2],
                               float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float maximum = state.maximum[half];
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      maximum = fmaxf(maximum, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(~0U, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(~0U, maximum, 2));
    correction[half] = fast_exp2((state.maximum[half] - maximum) * scale_log2);
    state.maximum[half] = maximum;
    const float offset = maximum * scale_log2;
    float sum = state.sum[half] * correction[half];
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = half * 2; i < half * 2 + 2; ++i) {
        s[n][i] = fast_exp2(fmaf(s[n][i], scale_log2, -offset));
        sum += s[n][i];
      }
    }
    state.sum[half] = sum;
  }
}

template <bool kShort>
class Consumer {
 public:
  __device__ Consumer(const AttentionParameters& p, SharedMemory& shared, int group)
      : p_(p),
        shared_(shared),
        group_(group),
        lane_(static_cast<int>(threadIdx.x % 32)),
        row_(group * kRows + static_cast<int>(threadIdx.x % 128) / 32 * 16) {}

  __device__ void run() {
    if (group_ == 1) sm90::named_barrier_arrive(kTurnBarrier, kConsumers * 128);
    Block block = first_block_of(next_tile());
    if (block.tile.seqlen == 0) return;
    if constexpr (kShort) {
      block.is_narrow ? begin<kKeys / 2>(block) : begin<kKeys>(block);
    } else {
      begin<kKeys>(block);
    }
    while (true) {
      Block next = block;
      next.starts_tile = next.is_narrow = false;
      --next.index;
      if (block.index == 0) {
        release<32>(shared_.queries_empty, query_ring_);
        next = first_block_of(next_tile());
        if (next.tile.seqlen == 0) break;
      }
      take_step(block, next);
      block = next;
    }
    if constexpr (kShort) {
      block.is_narrow ? finish<kKeys / 2>(block) : finish<kKeys>(block);
    } else {
      finish<kKeys>(block);
    }
  }

 private:
  static constexpr int kTurnBarrier = 1;  // and 2

  struct Block {
    AttentionTile tile;
    int index;
    bool starts_tile;
    bool is_narrow;
  };

  __device__ AttentionTile next_tile() const {
    sm90::mbarrier_wait(address(shared_.queries_full[query_ring_.stage]), query_ring_.parity);
    return shared_.tiles[query_ring_.stage];
  }

  __device__ Block first_block_of(const AttentionTile& tile) const {
    return {tile, first_block(tile), true, is_narrow<kShort>(tile, p_.log2_heads)};
  }

  __device__ void take_step(const Block& block, const Block& next) {
    if constexpr (!kShort) {
      step<kKeys, kKeys>(block, next);
    } else if (block.is_narrow) {
      next.is_narrow ? step<kKeys / 2, kKeys / 2>(block, next)
                     : step<kKeys / 2, kKeys>(block, next);
    } else {
      next.is_narrow ? step<kKeys, kKeys / 2>(block, next) : step<kKeys, kKeys>(block, next);
    }
  }

  // The very first block: its probabilities.
  template <int kColumns>
  __device__ void begin(const Block& block) {
    float s[16][4];
    sm90::mbarrier_wait(address(shared_.keys_full[key_ring_.stage]), key_ring_.parity);
    sm90::warpgroup_arrive();
    start_scores<kColumns>(s);
    sm90::warpgroup_wait<0>(s);
    release(shared_.keys_empty, key_ring_);
    begin_softmax<kColumns>(s, block.tile);
    probabilities<kColumns>(s);
  }

  // The probabilities of the next block and the values of the current one. The numbers of columns
  // are template arguments, so that no product is under way where branches meet.
  template <int kColumns, int kNextColumns>
  __device__ void step(const Block& block, const Block& next) {
    float s[16][4];
    float correction[2];
    sm90::mbarrier_wait(address(shared_.keys_full[key_ring_.stage]), key_ring_.parity);
    sm90::named_barrier_sync(kTurnBarrier + group_, kConsumers * 128);
    sm90::warpgroup_arrive();
    start_scores<kNextColumns>(s);
    sm90::mbarrier_wait(address(shared_.values_full[value_ring_.stage]), value_ring_.parity);
    start_values<kColumns>(!block.starts_tile);
    sm90::named_barrier_arrive(kTurnBarrier + (group_ ^ 1), kConsumers * 128);
    sm90::warpgroup_wait<1>(s);
    release(shared_.keys_empty, key_ring_);
    const float sums[2] = {state_.sum[0], state_.sum[1]};
    if (next.starts_tile) {
      begin_softmax<kNextColumns>(s, next.tile);
    } else {
      online_softmax<kNextColumns>(s, state_, correction, p_.scale_log2);
    }
    sm90::warpgroup_wait<0>(o_);
    release(shared_.values_empty, value_ring_);
    if (next.starts_tile) {
      store(sums, block.tile);
    } else {
      rescale(correction);
    }
    probabilities<kNextColumns>(s);
  }

  // The values of the very last block.
  template <int kColumns>
  __device__ void finish(const Block& block) {
    sm90::mbarrier_wait(address(shared_.values_full[value_ring_.stage]), value_ring_.parity);
    sm90::warpgroup_arrive();
    start_values<kColumns>(!block.starts_tile);
    sm90::warpgroup_wait<0>(o_);
    store(state_.sum, block.tile);
  }

  // All four warps must have done with a buffer before it is filled again: one lane of each says so
  // where tensor cores read it, and all lanes where they read it themselves, since racecheck does
  // not follow a barrier of threads by way of another.
  template <int kLanes = 1>
  __device__ void release(const std::uint64_t (&empty)[kStages], Ring& ring) const {
    __syncwarp();
    if (lane_ < kLanes) sm90::mbarrier_arrive(address(empty[ring.stage]));
    ring.advance();
  }

  template <int kColumns>
  __device__ void start_scores(float (&s)[16][4]) const {
    const std::uint64_t q = sm90::wgmma_descriptor(
        sm90::shared_address(shared_.queries[query_ring_.stage][group_]), kGroupBytes, 0);
    const std::uint64_t k =
        sm90::wgmma_descriptor(sm90::shared_address(shared_.keys[key_ring_.stage]), kGroupBytes, 0);
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {  // 16 dimensions are 32 bytes of a row
      const int half = i / 4, offset = i % 4 * 32;
      sm90::wgmma<kColumns>(s, q + (half * kQueryHalf + offset) / 16,
                            k + (half * kKeyHalf + offset) / 16, i > 0);
    }
    sm90::warpgroup_commit();
  }

  template <int kColumns>
  __device__ void start_values(bool accumulate) {
    const std::uint64_t v = sm90::wgmma_descriptor(
        sm90::shared_address(shared_.values[value_ring_.stage]), kGroupBytes, kKeyHalf);
#pragma unroll
    for (int i = 0; i < kColumns / 16; ++i) {
      sm90::wgmma_transposed(o_, a_[i], v + i * 16 * kSwizzleRow / 16, i > 0 || accumulate);
    }
    sm90::warpgroup_commit();
  }

  // First block of a tile: keys behind a row's position are hidden. Each row has one before it.
  template <int kColumns>
  __device__ void begin_softmax(float (&s)[16][4], const AttentionTile& tile) {
    const int first_key = first_block(tile) * kKeys + (lane_ & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + lane_ / 4 + half * 8;
      const int visible = tile.position + (row >> p_.log2_heads) - first_key;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        if (n * 8 > visible) s[n][half * 2] = -INFINITY;
        if (n * 8 + 1 > visible) s[n][half * 2 + 1] = -INFINITY;
      }
      state_.maximum[half] = -INFINITY;
      state_.sum[half] = 0.0F;
    }
    float correction[2];
    online_softmax<kColumns>(s, state_, correction, p_.scale_log2);
  }

  template <int kColumns>
  __device__ void probabilities(const float (&s)[16][4]) {
#pragma unroll
    for (int i = 0; i < kColumns / 16; ++i) {
      a_[i][0] = pack_bf16(s[2 * i][0], s[2 * i][1]);
      a_[i][1] = pack_bf16(s[2 * i][2], s[2 * i][3]);
      a_[i][2] = pack_bf16(s[2 * i + 1][0], s[2 * i + 1][1]);
      a_[i][3] = pack_bf16(s[2 * i + 1][2], s[2 * i + 1][3]);
    }
  }

  __device__ void rescale(const float (&correction)[2]) {
#pragma unroll
    for (int n = 0; n < 16; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o_[n][i] *= correction[i / 2];
    }
  }

  __device__ void store(const float (&sums)[2], const AttentionTile& tile) const {
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = sums[half];
      sum += __shfl_xor_sync(~0U, sum, 1);
      sum += __shfl_xor_sync(~0U, sum, 2);
      scale[half] = 1.0F / sum;
    }
    store_rows(p_, tile, row_, o_, scale, lane_);
  }

  const AttentionParameters& p_;
  SharedMemory& shared_;
  const int group_, lane_, row_;
  float o_[16][4];
  std::uint32_t a_[8][4];  // probabilities of the current block
  SoftmaxState state_;
  Ring query_ring_, key_ring_, value_ring_;
};

__device__ void init_barriers(SharedMemory& shared) {
  for (int i = 0; i < kStages; ++i) {
    sm90::mbarrier_init(address(shared.queries_full[i]), 1);
    sm90::mbarrier_init(address(shared.keys_full[i]), 1);
    sm90::mbarrier_init(address(shared.values_full[i]), 1);
    sm90::mbarrier_init(address(shared.queries_empty[i]), kConsumers * 128);
    sm90::mbarrier_init(address(shared.keys_empty[i]), kConsumers * 4);
    sm90::mbarrier_init(address(shared.values_empty[i]), kConsumers * 4);
  }
  sm90::mbarrier_fence_init();
}

template <bool kShort>
__global__ void __launch_bounds__(kThreads, 1)
    attention_kernel(const __grid_constant__ AttentionParameters p,
                     const __grid_constant__ TensorMaps maps) {
  extern __shared__ unsigned char raw[];
  const std::uint32_t misaligned = sm90::shared_address(raw) & 1023;
  SharedMemory& shared = *reinterpret_cast<SharedMemory*>(raw + ((1024 - misaligned) & 1023));
  if (threadIdx.x == 0) init_barriers(shared);
  __syncthreads();
  if (threadIdx.x < 128) {
    sm90::reg_dealloc<56>();
    if (threadIdx.x == 0) Producer<kShort>(p, maps, shared).run();
  } else {
    sm90::reg_alloc<224>();
    Consumer<kShort>(p, shared, static_cast<int>(threadIdx.x / 128) - 1).run();
  }
}

TensorMaps make_maps(const AttentionParameters& p, std::uint32_t box_keys) {
  const auto heads = static_cast<std::uint32_t>(1 << p.log2_heads);
  const auto tensor = [](const __nv_bfloat16* data, std::int64_t stride, std::int64_t rows,
                         std::uint32_t box_heads, std::uint32_t box_rows) {
    return TensorBox{
        .data = data,
        .size = {kHeadDim, static_cast<std::uint64_t>(stride / kHeadDim),
                 static_cast<std::uint64_t>(rows)},
        .stride_bytes = {kHeadDim * 2, static_cast<std::uint64_t>(stride) * 2},
        .box = {64, box_heads, box_rows},
    };
  };
  return {.queries = make_tensor_map(tensor(p.q, p.q_stride, p.q_rows, heads, kRows / heads)),
          .keys = make_tensor_map(tensor(p.kv, p.kv_stride, p.kv_rows, 1, box_keys))};
}

template <bool kShort>
void launch(const AttentionParameters& parameters, int blocks, cudaStream_t stream) {
  constexpr int kSharedBytes = sizeof(SharedMemory) + 1024;
  check_launch(cudaFuncSetAttribute(attention_kernel<kShort>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  attention_kernel<kShort><<<static_cast<unsigned>(blocks), kThreads, kSharedBytes, stream>>>(
      parameters, make_maps(parameters, kShort ? kKeys / 2 : kKeys));
  check_launch(cudaGetLastError());
}

}  // namespace

void launch_long_sm90(const AttentionParameters& parameters, int blocks, cudaStream_t stream) {
  launch<false>(parameters, blocks, stream);
}

void launch_short_sm90(const AttentionParameters& parameters, int blocks, cudaStream_t stream) {
  launch<true>(parameters, blocks, stream);
}

}  // namespace tessera::kernels::cuda
