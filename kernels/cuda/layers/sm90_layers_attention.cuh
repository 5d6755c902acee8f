#pragma once

// Attention of layers_sm90.cu: sixteen query rows a block, by four warps, over at most as many keys
// as a launch has tokens. They share the scores, eight keys a warp and round, then each takes 32
// dimensions of the values. Arithmetic and order of every sum are those of attention_sm90.cu, and
// mma.sync sums as wgmma does, so the bits are the same.

#include "kernels/cuda/base/quad.cuh"
#include "kernels/cuda/layers/sm90_layers_device.cuh"
#include "kernels/cuda/ptx/sm80_mma.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_warpgroup.cuh"
#include "kernels/cuda/rows/row_math.cuh"

namespace tessera::kernels::cuda::layers {

constexpr int kQueryRows = 16;
constexpr int kItemsMax = 16;  // of one block

// Sixteen query rows: the heads of one kv head times some positions of a sequence.
struct AttentionItem {
  std::int32_t first_row;  // of the sequence
  std::int32_t num_rows;
  std::int32_t position;
  std::int32_t kv_head;
};

template <int kTokens>
struct AttentionMemory {
  static constexpr int kKeys = (kTokens + 15) / 16 * 16;
  static constexpr int kChunk = kKeys < 64 ? kKeys : 64;  // keys whose values are held
  static constexpr int kValueRow = 80;                    // 32 dimensions and a gap
  float scores[kQueryRows][kKeys + 4];
  alignas(16) unsigned char values[kHelperWarps][kChunk * kValueRow];
  AttentionItem items[kItemsMax];
  int num_items;
};

__device__ inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What a lane holds of one row of a head: words[j] has dimensions 8 j + 2 t and the next, t being
// the lane's place among four. That is how matrix instructions want both operands.
struct HeadRow {
  std::uint32_t words[16];

  __device__ void load(const __nv_bfloat16* head, int t) {
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      words[j] = __ldcg(reinterpret_cast<const unsigned*>(head) + 4 * j + t);
    }
  }

  __device__ void store(__nv_bfloat16* head, int t) const {
#pragma unroll
    for (int j = 0; j < 16; ++j) reinterpret_cast<std::uint32_t*>(head)[4 * j + t] = words[j];
  }

  // All lanes of the warp.
  __device__ void norm_and_rotate(const float* norm, const float* angles, float eps, float m,
                                  int t) {
    float low[8][2], high[8][2], sums[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      unpack(words[j], low[j]);
      unpack(words[j + 8], high[j]);
      sums[j] = partial_square_sum(low[j][0], low[j][1], high[j][0], high[j][1]);
    }
#pragma unroll
    for (int distance = 1; distance < 8; distance *= 2) {
#pragma unroll
      for (int j = 0; j < 8; j += 2 * distance) sums[j] = __fadd_rn(sums[j], sums[j + distance]);
    }
    float sum = __fadd_rn(sums[0], __shfl_xor_sync(~0U, sums[0], 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 2));
    const float scale = head_scale(sum, eps, m);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int column = j * 8 + t * 2;
      const float2 weight_low = __ldg(reinterpret_cast<const float2*>(norm + column));
      const float2 weight_high = __ldg(reinterpret_cast<const float2*>(norm + 64 + column));
      const float2 cosine = __ldg(reinterpret_cast<const float2*>(angles + column));
      const float2 sine = __ldg(reinterpret_cast<const float2*>(angles + 64 + column));
      norm_and_rotate_pair(low[j][0], high[j][0], scale, weight_low.x, weight_high.x, cosine.x,
                           sine.x);
      norm_and_rotate_pair(low[j][1], high[j][1], scale, weight_low.y, weight_high.y, cosine.y,
                           sine.y);
      words[j] = pack_bf16(low[j][0], low[j][1]);
      words[j + 8] = pack_bf16(high[j][0], high[j][1]);
    }
  }

 private:
  __device__ static void unpack(std::uint32_t word, float (&pair)[2]) {
    pair[0] = __uint_as_float(word << 16);
    pair[1] = __uint_as_float(word & 0xFFFF0000U);
  }
};

__device__ inline int row_stride(const Parameters& p) {
  return (p.num_q + 2 * p.num_kv) * kHeadWidth;
}

// The four helper warps.
template <int kTokens>
class Attention {
 public:
  using Memory = AttentionMemory<kTokens>;

  __device__ Attention(const Parameters& p, Memory& memory, int thread)
      : p_(p), memory_(memory), warp_(thread / 32), lane_(thread % 32) {}

  __device__ void run(const AttentionItem& item) {
    const int t = lane_ % 4, g = lane_ / 4;
    const int last = min(item.position + (kQueryRows >> p_.log2_group), item.num_rows) - 1;
    const int keys = last + 1;
    HeadRow q[2], k;
    int position[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = g + half * 8;
      position[half] = item.position + (row >> p_.log2_group);
      const int index = (item.kv_head << p_.log2_group) + (row & ((1 << p_.log2_group) - 1));
      q[half].load(head(item.first_row + min(position[half], last), index), t);
    }
    load_keys(k, item, warp_ * 8, keys);
    uint4 held[kHeldValues];
    fetch_values(held, item, 0, keys);
#pragma unroll 1
    for (int first = warp_ * 8; first < keys; first += kHelperWarps * 8) {
      HeadRow next;
      load_keys(next, item, first + kHelperWarps * 8, keys);
      score(q, k, first);
      k = next;
    }
    sync();
    float s[Memory::kKeys / 8][4];
    float sums[2];
    softmax(s, sums, position, keys);
    float o[4][4] = {};
#pragma unroll 1
    for (int first = 0; first < keys; first += Memory::kChunk) {
      if (first > 0) fetch_values(held, item, first, keys);
      add_values(o, s, held, first, keys);
    }
    store(o, sums, item, position);
    sync();  // the scores may be overwritten
  }

 private:
  __device__ static void sync() { sm90::named_barrier_sync(kHelperBarrier, kHelpers); }

  __device__ const __nv_bfloat16* head(int row, int index) const {
    return p_.qkv + std::int64_t{row} * row_stride(p_) + index * kHeadWidth;
  }

  // Scores of keys behind the last one are not read.
  __device__ void load_keys(HeadRow& k, const AttentionItem& item, int first, int keys) const {
    const int key = min(first + lane_ / 4, keys - 1);
    k.load(head(item.first_row + key, p_.num_q + item.kv_head), lane_ % 4);
  }

  // The scores of eight keys.
  __device__ void score(const HeadRow (&q)[2], const HeadRow& k, int first) {
    const int t = lane_ % 4, g = lane_ / 4;
    float d[4] = {};
#pragma unroll
    for (int i = 0; i < kHeadWidth / 16; ++i) {
      const std::uint32_t a[4] = {q[0].words[2 * i], q[1].words[2 * i], q[0].words[2 * i + 1],
                                  q[1].words[2 * i + 1]};
      multiply_16x8(d, a, k.words[2 * i], k.words[2 * i + 1]);
    }
    *reinterpret_cast<float2*>(&memory_.scores[g][first + 2 * t]) = make_float2(d[0], d[1]);
    *reinterpret_cast<float2*>(&memory_.scores[g + 8][first + 2 * t]) = make_float2(d[2], d[3]);
  }

  // Of two rows in each lane: probabilities, and this lane's columns' sums of them.
  template <int kBlocks>
  __device__ void softmax(float (&s)[kBlocks][4], float (&sums)[2], const int (&position)[2],
                          int keys) const {
    const int t = lane_ % 4, g = lane_ / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int visible = position[half] - 2 * t;
      float maximum = -INFINITY;
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        float2 pair = make_float2(-INFINITY, -INFINITY);
        if (n * 8 < keys) {
          pair = *reinterpret_cast<const float2*>(&memory_.scores[g + half * 8][n * 8 + 2 * t]);
        }
        s[n][half * 2] = n * 8 > visible ? -INFINITY : pair.x;
        s[n][half * 2 + 1] = n * 8 + 1 > visible ? -INFINITY : pair.y;
        maximum = fmaxf(maximum, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
      }
      maximum = fmaxf(maximum, __shfl_xor_sync(~0U, maximum, 1));
      maximum = fmaxf(maximum, __shfl_xor_sync(~0U, maximum, 2));
      const float offset = maximum * p_.scale_log2;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          s[n][i] = exp2_of(fmaf(s[n][i], p_.scale_log2, -offset));
          sum += s[n][i];
        }
      }
      sums[half] = sum;
    }
  }

  // Values of a chunk of keys, 32 dimensions a warp: sixteen bytes a lane and round.
  static constexpr int kHeldValues = Memory::kChunk / 8;
  __device__ void fetch_values(uint4 (&held)[kHeldValues], const AttentionItem& item, int first,
                               int keys) const {
#pragma unroll
    for (int i = 0; i < kHeldValues; ++i) {
      const int key = first + i * 8 + lane_ / 4;
      held[i] = make_uint4(0, 0, 0, 0);
      if (key < keys) {
        const __nv_bfloat16* value =
            head(item.first_row + key, p_.num_q + p_.num_kv + item.kv_head) + warp_ * 32;
        held[i] = __ldcg(reinterpret_cast<const uint4*>(value) + lane_ % 4);
      }
    }
  }

  template <int kBlocks>
  __device__ void add_values(float (&o)[4][4], const float (&s)[kBlocks][4],
                             const uint4 (&held)[kHeldValues], int first, int keys) {
    unsigned char* values = memory_.values[warp_];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kHeldValues; ++i) {
      *reinterpret_cast<uint4*>(values + (i * 8 + lane_ / 4) * Memory::kValueRow + lane_ % 4 * 16) =
          held[i];
    }
    __syncwarp();
    const std::uint32_t own =
        sm90::shared_address(values) +
        static_cast<std::uint32_t>((lane_ % 16) * Memory::kValueRow + lane_ / 16 * 16);
#pragma unroll
    for (int i = 0; i < kBlocks / 2; ++i) {  // all of them, so that s stays in registers
      const int key = i * 16 - first;
      if (key < 0 || key >= Memory::kChunk || i * 16 >= keys) continue;
      const std::uint32_t a[4] = {
          pack_bf16(s[2 * i][0], s[2 * i][1]), pack_bf16(s[2 * i][2], s[2 * i][3]),
          pack_bf16(s[2 * i + 1][0], s[2 * i + 1][1]), pack_bf16(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        std::uint32_t b[4];
        load_matrices_transposed(
            b, own + static_cast<std::uint32_t>(key * Memory::kValueRow + pair * 32));
        multiply_16x8(o[2 * pair], a, b[0], b[1]);
        multiply_16x8(o[2 * pair + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ void store(const float (&o)[4][4], const float (&sums)[2], const AttentionItem& item,
                        const int (&position)[2]) const {
    const int t = lane_ % 4, g = lane_ / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = sums[half];
      sum += __shfl_xor_sync(~0U, sum, 1);
      sum += __shfl_xor_sync(~0U, sum, 2);
      const float scale = 1.0F / sum;
      if (position[half] >= item.num_rows) continue;
      const int row = g + half * 8;
      const int index = (item.kv_head << p_.log2_group) + (row & ((1 << p_.log2_group) - 1));
      __nv_bfloat16* out = p_.attention +
                           std::int64_t{item.first_row + position[half]} * (p_.num_q * kHeadWidth) +
                           index * kHeadWidth + warp_ * 32 + 2 * t;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        *reinterpret_cast<std::uint32_t*>(out + 8 * n) =
            pack_bf16(o[n][half * 2] * scale, o[n][half * 2 + 1] * scale);
      }
    }
  }

  const Parameters& p_;
  Memory& memory_;
  const int warp_, lane_;
};

}  // namespace tessera::kernels::cuda::layers
