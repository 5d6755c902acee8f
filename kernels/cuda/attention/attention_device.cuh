#pragma once

// Device code that both attention kernels share.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention/attention_tiles.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/quad.cuh"

namespace tessera::kernels::cuda {

// Numbers that every tile of a launch shares, passed by value.
struct AttentionParameters {
  __nv_bfloat16* out;
  const __nv_bfloat16* q;
  const __nv_bfloat16* kv;
  AttentionTileHeader* header;  // the tiles follow it
  std::int64_t out_stride;      // elements from token to token
  std::int64_t q_stride;
  std::int64_t kv_stride;
  std::int64_t q_rows;  // that may be read
  std::int64_t kv_rows;
  int k_offset;  // of the first key head in a token's row
  int v_offset;
  int group;         // query heads of a kv head
  int log2_heads;    // of one tile
  float scale_log2;  // 1 / sqrt(head_dim) * log2(e)
};

__device__ inline const AttentionTile* tiles_of(const AttentionTileHeader* header) {
  return reinterpret_cast<const AttentionTile*>(header + 1);
}

__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Stores one warp's 16 rows of a tile from the accumulators of m16n8 products, `o[n][0..1]` for row
// lane / 4 and `o[n][2..3]` for 8 rows below, multiplied by scale[0] and scale[1]. Each lane writes
// 16 bytes at a time, each four lanes 64 bytes of a row. Rows behind the sequence are left out.
__device__ inline void store_rows(const AttentionParameters& p, const AttentionTile& tile, int row,
                                  const float (&o)[kHeadDim / 8][4], const float (&scale)[2],
                                  int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + lane / 4 + half * 8;
    const int position = tile.position + (r >> p.log2_heads);
    const int head = tile.q_head + (r & ((1 << p.log2_heads) - 1));
    __nv_bfloat16* out = p.out + static_cast<std::int64_t>(tile.first_q + position) * p.out_stride +
                         head * kHeadDim + (lane & 3) * 8;
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n += 4) {
      std::uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        words[i] =
            pack_bf16(o[n + i][half * 2] * scale[half], o[n + i][half * 2 + 1] * scale[half]);
      }
      transpose_quad(words, lane);
      if (position < tile.seqlen) {
        *reinterpret_cast<uint4*>(out + n * 8) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
}

}  // namespace tessera::kernels::cuda
