#pragma once

// What gemm_sm90.cu's products are turned into, in the registers of the warpgroups that made them,
// and how it gets to memory. The weight's rows come in such an order (kPeriod, make_weight_map)
// that a lane's accumulators are eight neighbouring results of each group of 32, from 8 q on where
// q = lane % 4; d[n][i] belongs to row i / 2 * 8 of the lane.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/epilogue_math.cuh"
#include "kernels/cuda/gemm_sm90.hpp"
#include "kernels/cuda/quad.cuh"

namespace tessera::kernels::cuda {

constexpr int kTileColumns = 256;
constexpr int kHeadWidth = 128;

using HeadNorms = float[2][kHeadWidth];  // of q and of k heads, in shared memory

struct GemmOutput {
  __nv_bfloat16* data;
  const float* mean_squares;
  std::int64_t stride;  // elements from row to row
  int rows;
};

// A lane's results of one tile on their way to memory, eight neighbouring ones a piece: first all
// groups of 32 columns of its upper row, then those of the row 8 below.
template <int kGroups>
struct Results {
  static constexpr int kPieces = 2 * kGroups;

  std::uint32_t words[kPieces][4];
  __nv_bfloat16* out = nullptr;  // of its upper row and first column
  int rows_left = 0;             // from its upper row on; 0 or less: nothing to store

  __device__ void aim(const GemmOutput& o, int row, int column_block, int lane) {
    out = o.data + row * o.stride + column_block * (kGroups * 32) + (lane & 3) * 8;
    rows_left = o.rows - row;
  }
  __device__ void store(const GemmOutput& o, int piece) const {
    const int half = piece / kGroups;
    if (half * 8 < rows_left) {
      const std::uint32_t* w = words[piece];
      *reinterpret_cast<uint4*>(out + half * 8 * o.stride + piece % kGroups * 32) =
          make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
  // What lies where the piece goes.
  __device__ void load(const GemmOutput& o, int piece) {
    const int half = piece / kGroups;
    uint4 v{};
    if (half * 8 < rows_left) {
      v = *reinterpret_cast<const uint4*>(out + half * 8 * o.stride + piece % kGroups * 32);
    }
    std::uint32_t* w = words[piece];
    w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
  }
};

// Group g of 32 columns: the lane's results 8 q + 2 i and 8 q + 2 i + 1 are those of d[8 i + g].
__device__ inline void pack_group(const float (&d)[32][4], int half, int group,
                                  std::uint32_t (&words)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* pair = d[8 * i + group] + half * 2;
    words[i] = pack_bf16(pair[0], pair[1]);
  }
}

struct PlainEpilogue {
  static constexpr bool kAdds = false;
  static constexpr int kPeriod = 8;
  static constexpr int kGroups = kTileColumns / 32;
  struct State {};
  __device__ void begin(const GemmOutput&, State&, int) const {}
  __device__ void prefetch(State&, int) const {}
  __device__ void finish(const HeadNorms&, const State&, const float (&d)[32][4], int, int,
                         std::uint32_t (&words)[2 * kGroups][4]) const {
#pragma unroll
    for (int piece = 0; piece < 2 * kGroups; ++piece) {
      pack_group(d, piece / kGroups, piece % kGroups, words[piece]);
    }
  }
};

// The product is rounded before it is added, as elsewhere.
struct SumEpilogue {
  static constexpr bool kAdds = true;
  static constexpr int kPeriod = 8;
  static constexpr int kGroups = kTileColumns / 32;
  struct State {};
  __device__ void begin(const GemmOutput&, State&, int) const {}
  __device__ void prefetch(State&, int) const {}
  __device__ void finish(const HeadNorms&, const State&, const float (&d)[32][4], int, int,
                         std::uint32_t (&words)[2 * kGroups][4]) const {
#pragma unroll
    for (int piece = 0; piece < 2 * kGroups; ++piece) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = d[8 * i + piece % kGroups] + piece / kGroups * 2;
        float low = pair[0], high = pair[1];
        round_pair_to_bf16(low, high);
        const std::uint32_t old = words[piece][i];
        words[piece][i] = pack_bf16(__fadd_rn(low, __uint_as_float(old << 16)),
                                    __fadd_rn(high, __uint_as_float(old & 0xFFFF0000U)));
      }
    }
  }
};

// The mean squares of a lane's two rows.
__device__ inline void load_mean_squares(float (&m)[2], const GemmOutput& o, int row) {
#pragma unroll
  for (int half = 0; half < 2; ++half) m[half] = o.mean_squares[min(row + half * 8, o.rows - 1)];
}

// The weight's rows are eight of gate, eight of up, and so on. Of group g of 32 results the lane's
// 8 q + 2 i and 8 q + 2 i + 1 are made of d[4 i + g] and d[16 + 4 i + g].
struct SwigluEpilogue {
  static constexpr bool kAdds = false;
  static constexpr int kPeriod = 16;
  static constexpr int kGroups = kTileColumns / 64;
  struct State {
    float m[2];
  };
  __device__ void begin(const GemmOutput& o, State& state, int row) const {
    load_mean_squares(state.m, o, row);
  }
  __device__ void prefetch(State&, int) const {}

  __device__ void finish(const HeadNorms&, const State& state, const float (&d)[32][4], int, int,
                         std::uint32_t (&words)[2 * kGroups][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = row_scale(state.m[half]);
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* of_gate = d[4 * i + group] + half * 2;
          const float* of_up = d[16 + 4 * i + group] + half * 2;
          float gate[2] = {of_gate[0], of_gate[1]};
          float up[2] = {of_up[0], of_up[1]};
          round_pair_to_bf16(gate[0], gate[1]);
          round_pair_to_bf16(up[0], up[1]);
          words[half * kGroups + group][i] =
              pack_bf16(silu_times(gate[0], up[0], scale), silu_times(gate[1], up[1], scale));
        }
      }
    }
  }
};

// Four lanes hold a row of a head, each of them both members of the pairs (c, c + 64): groups 0 and
// 1 of 32 columns are rotated against 2 and 3. Lane q has 8 q .. 8 q + 7 of each.
struct HeadEpilogue {
  static constexpr bool kAdds = false;
  static constexpr int kPeriod = 8;
  static constexpr int kGroups = kTileColumns / 32;
  struct Angles {
    float4 cosine[2][2], sine[2][2];  // of four columns: [group][first or last four]
  };
  struct State {
    float m[2];
    int position[2];
    Angles angles;  // of the first row
  };
  HeadNormRope options;

  __device__ void begin(const GemmOutput& o, State& state, int row) const {
    load_mean_squares(state.m, o, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.position[half] = options.positions[min(row + half * 8, o.rows - 1)];
    }
  }

  __device__ void prefetch(State& state, int lane) const {
    load(state.angles, state.position[0], lane);
  }

  __device__ void finish(const HeadNorms& norms, const State& state, float (&d)[32][4],
                         int column_block, int lane, std::uint32_t (&words)[2 * kGroups][4]) const {
    constexpr int kHeads = kTileColumns / kHeadWidth;
    Angles second;
    load(second, state.position[1], lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
        const int index = column_block * kHeads + head;
        if (index < options.num_q + options.num_k) {
          norm_and_rotate(d, head * 4, half, norms[index < options.num_q ? 0 : 1], state.m[half],
                          half == 0 ? state.angles : second, lane);
        } else {
          scale_head(d, head * 4, half, row_scale(state.m[half]));
        }
#pragma unroll
        for (int group = head * 4; group < head * 4 + 4; ++group) {
          pack_group(d, half, group, words[half * kGroups + group]);
        }
      }
    }
  }

 private:
  __device__ static void scale_head(float (&d)[32][4], int first_group, int half, float scale) {
#pragma unroll
    for (int n = 0; n < kHeadWidth / 8; ++n) {
      float* pair = d[n / 4 * 8 + first_group + n % 4] + half * 2;
      round_pair_to_bf16(pair[0], pair[1]);
      pair[0] = __fmul_rn(pair[0], scale);
      pair[1] = __fmul_rn(pair[1], scale);
    }
  }

  __device__ void load(Angles& angles, int position, int lane) const {
    const float* row = options.rope_table + static_cast<std::int64_t>(position) * kHeadWidth;
#pragma unroll
    for (int group = 0; group < 2; ++group) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const float* at = row + group * 32 + (lane & 3) * 8 + part * 4;
        angles.cosine[group][part] = __ldg(reinterpret_cast<const float4*>(at));
        angles.sine[group][part] = __ldg(reinterpret_cast<const float4*>(at + kHeadWidth / 2));
      }
    }
  }

  // The head's sum of squares from the partial sums [i][group] of four lanes, in epilogue_math's
  // order: its lane t is i here, and its j are the lanes of group 0, then those of group 1. Two
  // exchanges leave each lane with one i, summed over the lanes.
  __device__ static float add_up(const float (&sums)[4][2], int lane) {
    const bool odd = lane & 1;
    const bool upper = lane & 2;
    float of_two[2][2];
    float of_i[2];
#pragma unroll
    for (int group = 0; group < 2; ++group) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float sent = odd ? sums[i][group] : sums[2 + i][group];
        const float kept = odd ? sums[2 + i][group] : sums[i][group];
        of_two[i][group] = __fadd_rn(kept, __shfl_xor_sync(~0U, sent, 1));
      }
      const float sent = upper ? of_two[0][group] : of_two[1][group];
      const float kept = upper ? of_two[1][group] : of_two[0][group];
      of_i[group] = __fadd_rn(kept, __shfl_xor_sync(~0U, sent, 2));
    }
    float sum = __fadd_rn(of_i[0], of_i[1]);
    sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 2));
    return __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 1));
  }

  __device__ void norm_and_rotate(float (&d)[32][4], int first_group, int half, const float* weight,
                                  float m, const Angles& angles, int lane) const {
    float sums[4][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int group = 0; group < 2; ++group) {
        float* low = d[8 * i + first_group + group] + half * 2;
        float* high = d[8 * i + first_group + group + 2] + half * 2;
        round_pair_to_bf16(low[0], low[1]);
        round_pair_to_bf16(high[0], high[1]);
        sums[i][group] = partial_square_sum(low[0], low[1], high[0], high[1]);
      }
    }
    const float scale = head_scale(add_up(sums, lane), options.eps, m);
#pragma unroll
    for (int group = 0; group < 2; ++group) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const float* at = weight + group * 32 + (lane & 3) * 8 + part * 4;
        const float4 low = *reinterpret_cast<const float4*>(at);
        const float4 high = *reinterpret_cast<const float4*>(at + kHeadWidth / 2);
        const float4 cosine = angles.cosine[group][part], sine = angles.sine[group][part];
        float* a = d[16 * part + first_group + group] + half * 2;  // i = 2 part
        float* b = d[16 * part + first_group + group + 2] + half * 2;
        norm_and_rotate_pair(a[0], b[0], scale, low.x, high.x, cosine.x, sine.x);
        norm_and_rotate_pair(a[1], b[1], scale, low.y, high.y, cosine.y, sine.y);
        a = d[16 * part + 8 + first_group + group] + half * 2;
        b = d[16 * part + 8 + first_group + group + 2] + half * 2;
        norm_and_rotate_pair(a[0], b[0], scale, low.z, high.z, cosine.z, sine.z);
        norm_and_rotate_pair(a[1], b[1], scale, low.w, high.w, cosine.w, sine.w);
      }
    }
  }
};

}  // namespace tessera::kernels::cuda
