#pragma once

// What gemm_sm90.cu's products are turned into on their way from registers to memory. At the end of
// a tile its sums are only rounded, as a plain product would store them; an epilogue's steps turn
// them into results and store these while the next tile's products run. A slice of those takes the
// tensor cores about a thousand cycles; the steps behind it should take less.
//
// The weight's rows come in such an order (kPeriod, make_weight_map) that a lane's sums are eight
// neighbouring results of each group of 32, from 8 q on where q = lane % 4.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/base/quad.cuh"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/rows/row_math.cuh"

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

// A lane's sums of one tile, in pairs: those of its upper row and of the row 8 below, called
// halves.
struct RoundedTile {
  std::uint32_t words[2][kTileColumns / 8];
  __nv_bfloat16* out = nullptr;  // of the upper row and the lane's first column
  int rows_left = 0;             // from the upper row on; 0 or less: nothing to store
  int column_block = 0;

  __device__ void aim(const GemmOutput& o, int row, int block, int columns, int lane) {
    out = o.data + row * o.stride + block * columns + (lane & 3) * 8;
    rows_left = o.rows - row;
    column_block = block;
  }
  __device__ void round(const float (&d)[kTileColumns / 8][4]) {
#pragma unroll
    for (int n = 0; n < kTileColumns / 8; ++n) {
      words[0][n] = pack_bf16(d[n][0], d[n][1]);
      words[1][n] = pack_bf16(d[n][2], d[n][3]);
    }
  }
  // Eight neighbouring results of a group of 32.
  __device__ uint4* place(const GemmOutput& o, int half, int group) const {
    return reinterpret_cast<uint4*>(out + half * 8 * o.stride + group * 32);
  }
  __device__ void store(const GemmOutput& o, int half, int group, std::uint32_t a, std::uint32_t b,
                        std::uint32_t c, std::uint32_t d) const {
    if (half * 8 < rows_left) *place(o, half, group) = make_uint4(a, b, c, d);
  }
  // As they are: group g has words 8 i + g, for i < 4.
  __device__ void store(const GemmOutput& o, int half, int group) const {
    const std::uint32_t* w = words[half] + group;
    store(o, half, group, w[0], w[8], w[16], w[24]);
  }
};

struct PlainEpilogue {
  static constexpr int kPeriod = 8;
  static constexpr int kColumns = kTileColumns;  // of results
  static constexpr int kSteps = 16;
  struct State {};
  __device__ void begin(const GemmOutput&, State&, int) const {}
  __device__ void step(const GemmOutput& o, const HeadNorms&, State&, RoundedTile& tile, int step,
                       int) const {
    tile.store(o, step / 8, step % 8);
  }
};

// The product is rounded before it is added, as elsewhere. The L2 cache adds: a lane that waited
// for the old values would keep the next products waiting. Each result is added to once, so the
// order of blocks does not show; a sum of two bf16 numbers rounds alike by way of float or not.
struct SumEpilogue : PlainEpilogue {
  __device__ void step(const GemmOutput& o, const HeadNorms&, State&, RoundedTile& tile, int step,
                       int) const {
    const int half = step / 8, group = step % 8;
    const std::uint32_t* w = tile.words[half] + group;
    if (half * 8 < tile.rows_left) {
      sm90::red_add_bf16x8(tile.place(o, half, group), w[0], w[8], w[16], w[24]);
    }
  }
};

// The mean squares of a lane's two rows.
__device__ inline void load_mean_squares(float (&m)[2], const GemmOutput& o, int row) {
#pragma unroll
  for (int half = 0; half < 2; ++half) m[half] = o.mean_squares[min(row + half * 8, o.rows - 1)];
}

// The weight's rows are eight of gate, eight of up, and so on. Of group g of 32 results the lane's
// 8 q + 2 i and 8 q + 2 i + 1 are made of words 4 i + g and 16 + 4 i + g.
struct SwigluEpilogue {
  static constexpr int kPeriod = 16;
  static constexpr int kColumns = kTileColumns / 2;
  static constexpr int kSteps = 8;
  struct State {
    float m[2];
  };
  __device__ void begin(const GemmOutput& o, State& state, int row) const {
    load_mean_squares(state.m, o, row);
  }
  __device__ void step(const GemmOutput& o, const HeadNorms&, State& state, RoundedTile& tile,
                       int step, int) const {
    const int half = step / 4, group = step % 4;
    const float scale = row_scale(state.m[half]);
    const std::uint32_t* w = tile.words[half] + group;
    std::uint32_t result[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t gate = w[4 * i], up = w[16 + 4 * i];
      result[i] = pack_bf16(silu_times(low_of(gate), low_of(up), scale),
                            silu_times(high_of(gate), high_of(up), scale));
    }
    tile.store(o, half, group, result[0], result[1], result[2], result[3]);
  }
};

// Four lanes hold a row of a head, each of them both members of the pairs (c, c + 64): groups 0 and
// 1 of 32 columns are rotated against 2 and 3. Lane q has 8 q .. 8 q + 7 of each. The scale of a
// half's head is made in one step; then four turns take four pairs each, one head a step. The
// tensor cores keep the SM's memory busy, so even what lies there is fetched a turn ahead. The
// angles of two turns come from farther away: scales of the other half are made meanwhile.
struct HeadEpilogue {
  static constexpr int kPeriod = 8;
  static constexpr int kColumns = kTileColumns;
  static constexpr int kSteps = 26;
  static constexpr int kHeads = kTileColumns / kHeadWidth;
  struct State {
    float m[2];
    int position[2];
    float scale[2][kHeads];
    float4 cosine, sine;  // of the next turn: columns c .. c + 3
    float4 low, high;     // and the weights of their norm and of those 64 higher, for head 0
  };
  HeadNormRope options;

  __device__ void begin(const GemmOutput& o, State& state, int row) const {
    load_mean_squares(state.m, o, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.position[half] = options.positions[min(row + half * 8, o.rows - 1)];
    }
  }

  __device__ void step(const GemmOutput& o, const HeadNorms& norms, State& state, RoundedTile& tile,
                       int step, int lane) const {
    enum Task { kScale, kTurn, kNothing };
    struct StepPair {
      Task task;
      int half;
      int which;  // head or turn
    };
    constexpr StepPair kPairs[kSteps / 2] = {
        {kScale, 0, 0},   {kScale, 0, 1}, {kTurn, 0, 0},  {kTurn, 0, 1}, {kScale, 1, 0},
        {kTurn, 0, 2},    {kTurn, 0, 3},  {kScale, 1, 1}, {kTurn, 1, 0}, {kTurn, 1, 1},
        {kNothing, 1, 0}, {kTurn, 1, 2},  {kTurn, 1, 3},
    };
    const StepPair at = kPairs[step / 2];
    const bool is_first = step % 2 == 0;
    if (at.task == kScale) {
      if (is_first) {
        state.scale[at.half][at.which] = make_scale(state, tile, at.half, at.which, lane);
      }
      if (step == 0) fetch(norms, state, tile, 0, 0, lane);
    } else if (at.task == kTurn) {
      const int head = step % 2;
      turn(norms, state, tile, at.half, at.which, head, lane);
      if (at.which % 2 == 1) {
        tile.store(o, at.half, head * 4 + at.which / 2);
        tile.store(o, at.half, head * 4 + at.which / 2 + 2);
      }
      if (!is_first && step < kSteps - 1) {
        fetch(norms, state, tile, at.half + (at.which + 1) / kTurns, (at.which + 1) % kTurns, lane);
      }
    }
  }

 private:
  static constexpr int kTurns = 4;
  enum Kind { kQuery, kKey, kValue };

  __device__ Kind kind(const RoundedTile& tile, int head) const {
    const int index = tile.column_block * kHeads + head;
    return index < options.num_q ? kQuery : index < options.num_q + options.num_k ? kKey : kValue;
  }
  __device__ static int first_column(int turn, int lane) {  // of four
    return turn / 2 * 32 + (lane & 3) * 8 + turn % 2 * 4;
  }
  __device__ static void load(float4& low, float4& high, const float* from) {
    low = *reinterpret_cast<const float4*>(from);
    high = *reinterpret_cast<const float4*>(from + kHeadWidth / 2);
  }
  __device__ void fetch(const HeadNorms& norms, State& state, const RoundedTile& tile, int half,
                        int turn, int lane) const {
    if (kind(tile, 0) == kValue) return;
    const int column = first_column(turn, lane);
    const std::int64_t row = state.position[half];
    load(state.cosine, state.sine, options.rope_table + row * kHeadWidth + column);
    load(state.low, state.high, norms[kind(tile, 0)] + column);
  }

  __device__ float make_scale(const State& state, const RoundedTile& tile, int half, int head,
                              int lane) const {
    const float m = state.m[half];
    return kind(tile, head) == kValue
               ? row_scale(m)
               : head_scale(add_up(tile.words[half] + head * 4, lane), options.eps, m);
  }

  // A head's sum of squares over four lanes, in epilogue_math's order: its lane t is i here, and
  // its j are the lanes of group 0, then those of group 1. Two exchanges leave each lane with one
  // i, summed over the lanes.
  __device__ static float add_up(const std::uint32_t* w, int lane) {
    const bool odd = lane & 1;
    const bool upper = lane & 2;
    float of_i[2];
#pragma unroll
    for (int group = 0; group < 2; ++group) {
      float sums[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t low = w[8 * i + group], high = w[8 * i + group + 2];
        sums[i] = partial_square_sum(low_of(low), high_of(low), low_of(high), high_of(high));
      }
      float of_two[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float sent = odd ? sums[i] : sums[2 + i];
        const float kept = odd ? sums[2 + i] : sums[i];
        of_two[i] = __fadd_rn(kept, __shfl_xor_sync(~0U, sent, 1));
      }
      const float sent = upper ? of_two[0] : of_two[1];
      const float kept = upper ? of_two[1] : of_two[0];
      of_i[group] = __fadd_rn(kept, __shfl_xor_sync(~0U, sent, 2));
    }
    float sum = __fadd_rn(of_i[0], of_i[1]);
    sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 2));
    return __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 1));
  }

  __device__ void turn(const HeadNorms& norms, const State& state, RoundedTile& tile, int half,
                       int turn, int head, int lane) const {
    std::uint32_t* w = tile.words[half] + head * 4 + 16 * (turn % 2) + turn / 2;
    const float scale = state.scale[half][head];
    if (kind(tile, head) == kValue) {
#pragma unroll
      for (int i = 0; i < 16; i += i % 8 == 0 ? 2 : 6) {
        w[i] = pack_bf16(__fmul_rn(low_of(w[i]), scale), __fmul_rn(high_of(w[i]), scale));
      }
      return;
    }
    float4 low = state.low, high = state.high;
    if (kind(tile, head) != kind(tile, 0)) load(low, high, norms[kKey] + first_column(turn, lane));
    const float4 &cosine = state.cosine, &sine = state.sine;
    norm_and_rotate(w[0], w[2], scale, {low.x, low.y}, {high.x, high.y}, {cosine.x, cosine.y},
                    {sine.x, sine.y});
    norm_and_rotate(w[8], w[10], scale, {low.z, low.w}, {high.z, high.w}, {cosine.z, cosine.w},
                    {sine.z, sine.w});
  }
  __device__ static void norm_and_rotate(std::uint32_t& low, std::uint32_t& high, float scale,
                                         float2 low_weight, float2 high_weight, float2 cosine,
                                         float2 sine) {
    float a[2] = {low_of(low), high_of(low)};
    float b[2] = {low_of(high), high_of(high)};
    norm_and_rotate_pair(a[0], b[0], scale, low_weight.x, high_weight.x, cosine.x, sine.x);
    norm_and_rotate_pair(a[1], b[1], scale, low_weight.y, high_weight.y, cosine.y, sine.y);
    low = pack_bf16(a[0], a[1]);
    high = pack_bf16(b[0], b[1]);
  }
};

}  // namespace tessera::kernels::cuda
