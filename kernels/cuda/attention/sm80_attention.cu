// Attention with mma.sync for every GPU from sm_80.
//
// One thread block computes one tile: 16 rows a warp, a row being one query head at one position.
// It walks the keys in blocks of 64 from the diagonal down to 0, with the next block on its way by
// cp.async while the current one is used. Each block costs two chains of m16n8k16 products: scores
// S = Q K^T, which stay in registers, are masked on the diagonal only and turned to probabilities
// by the online softmax, and O += P V. Bytes: Q and O once, K and V of a kv head once a tile.

#include <cmath>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention_device.cuh"
#include "kernels/cuda/attention/attention_launch.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kKeys = 64;                       // of one block
constexpr int kRowBytes = kHeadDim * 2;         // of one row in shared memory
constexpr int kBlockBytes = kKeys * kRowBytes;  // K or V of one block
constexpr int kStageBytes = 2 * kBlockBytes;

__device__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16-byte chunks are permuted inside each 128 bytes of a row so that the eight rows that ldmatrix
// reads at once lie in different banks.
__device__ int chunk_offset(int row, int chunk) {
  return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
}

// Copies 16 bytes, or writes zeros.
__device__ void copy_async(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0));
}

__device__ void load_matrix(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ void load_matrix_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                             std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <int kWarps>
__device__ void load_queries(const AttentionParameters& p, const AttentionTile& tile,
                             std::uint32_t to) {
  for (int i = static_cast<int>(threadIdx.x); i < kWarps * 16 * 16; i += kWarps * 32) {
    const int row = i / 16, chunk = i % 16;
    const int position = tile.position + (row >> p.log2_heads);
    const bool valid = position < tile.seqlen;
    const int head = tile.q_head + (row & ((1 << p.log2_heads) - 1));
    const std::int64_t token = tile.first_q + (valid ? position : tile.position);
    copy_async(to + chunk_offset(row, chunk),
               p.q + token * p.q_stride + head * kHeadDim + chunk * 8, valid);
  }
}

template <int kWarps>
__device__ void load_keys_and_values(const AttentionParameters& p, const AttentionTile& tile,
                                     int block, std::uint32_t to) {
  const int kv_column = tile.q_head / p.group * kHeadDim;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * 16; i += kWarps * 32) {
    const int row = i / 16, chunk = i % 16;
    const int key = block * kKeys + row;
    const bool valid = key < tile.seqlen;
    const __nv_bfloat16* from =
        p.kv + static_cast<std::int64_t>(tile.first_kv + (valid ? key : 0)) * p.kv_stride +
        kv_column + chunk * 8;
    copy_async(to + chunk_offset(row, chunk), from + p.k_offset, valid);
    copy_async(to + kBlockBytes + chunk_offset(row, chunk), from + p.v_offset, valid);
  }
}

// What one warp carries from block to block: 16 rows, two of them in each lane.
struct RowState {
  float o[kHeadDim / 8][4] = {};
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};  // of this lane's columns
};

__device__ void scores(float (&s)[kKeys / 8][4], const std::uint32_t (&q)[kHeadDim / 16][4],
                       std::uint32_t keys, int lane) {
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0.0F;
  }
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; ++k) {
#pragma unroll
    for (int n = 0; n < kKeys / 8; n += 2) {
      std::uint32_t b[4];
      const int row = n * 8 + (lane & 7) + ((lane >> 4) << 3);
      load_matrix(b, keys + chunk_offset(row, k * 2 + ((lane >> 3) & 1)));
      multiply_add(s[n], q[k], b[0], b[1]);
      multiply_add(s[n + 1], q[k], b[2], b[3]);
    }
  }
}

// Hides keys behind the row's position; `first_position` is that of the warp's row lane / 4.
__device__ void mask(float (&s)[kKeys / 8][4], const int (&position)[2], int first_key, int lane) {
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + n * 8 + (lane & 3) * 2 + (i & 1);
      if (key > position[i >> 1]) s[n][i] = -INFINITY;
    }
  }
}

__device__ void online_softmax(float (&s)[kKeys / 8][4], RowState& state, float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float maximum = state.maximum[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      maximum = fmaxf(maximum, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(~0U, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(~0U, maximum, 2));
    // A row whose keys are all hidden so far keeps -inf; 0 then avoids inf - inf.
    const float offset = maximum == -INFINITY ? 0.0F : maximum * scale_log2;
    const float correction = fast_exp2(state.maximum[half] * scale_log2 - offset);
    state.maximum[half] = maximum;
    float sum = 0.0F;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = half * 2; i < half * 2 + 2; ++i) {
        s[n][i] = fast_exp2(fmaf(s[n][i], scale_log2, -offset));
        sum += s[n][i];
      }
    }
    state.sum[half] = state.sum[half] * correction + sum;
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      state.o[n][half * 2] *= correction;
      state.o[n][half * 2 + 1] *= correction;
    }
  }
}

__device__ void add_values(RowState& state, const float (&s)[kKeys / 8][4], std::uint32_t values,
                           int lane) {
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    const std::uint32_t a[4] = {
        pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
        pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n += 2) {
      std::uint32_t b[4];
      load_matrix_transposed(b, values + chunk_offset(k * 16 + (lane & 15), n + (lane >> 4)));
      multiply_add(state.o[n], a, b[0], b[1]);
      multiply_add(state.o[n + 1], a, b[2], b[3]);
    }
  }
}

__device__ void normalise(RowState& state, float (&scale)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = state.sum[half];
    sum += __shfl_xor_sync(~0U, sum, 1);
    sum += __shfl_xor_sync(~0U, sum, 2);
    scale[half] = 1.0F / sum;
  }
}

// kLong picks the part of the tile list; the tile has 16 * kWarps rows.
template <int kWarps, bool kLong>
__global__ void __launch_bounds__(kWarps * 32, kWarps == 4 ? 2 : 1)
    attention_kernel(const __grid_constant__ AttentionParameters p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int index = static_cast<int>(blockIdx.x);
  if (index >= (kLong ? p.header->num_long : p.header->num_short)) return;
  const AttentionTile tile = tiles_of(p.header)[kLong ? index : index + p.header->num_long];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const std::uint32_t queries = shared_address(shared);
  const std::uint32_t stages = queries + kWarps * 16 * kRowBytes;

  const int positions = (kWarps * 16) >> p.log2_heads;
  const int last_position = min(tile.position + positions, tile.seqlen) - 1;
  int block = last_position / kKeys;
  load_queries<kWarps>(p, tile, queries);
  load_keys_and_values<kWarps>(p, tile, block, stages);
  asm volatile("cp.async.commit_group;");

  std::uint32_t q[kHeadDim / 16][4];
  RowState state;
  const int row = warp * 16 + lane / 4;
  const int position[2] = {tile.position + (row >> p.log2_heads),
                           tile.position + ((row + 8) >> p.log2_heads)};
  const int newest = block;
  for (; block >= 0; --block) {
    const std::uint32_t stage = stages + ((newest - block) & 1) * kStageBytes;
    if (block > 0) {
      load_keys_and_values<kWarps>(p, tile, block - 1,
                                   stages + ((newest - block + 1) & 1) * kStageBytes);
    }
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    if (block == newest) {
#pragma unroll
      for (int k = 0; k < kHeadDim / 16; ++k) {
        load_matrix(q[k], queries + chunk_offset(warp * 16 + (lane & 15), k * 2 + (lane >> 4)));
      }
    }
    float s[kKeys / 8][4];
    scores(s, q, stage, lane);
    if ((block + 1) * kKeys > tile.position) mask(s, position, block * kKeys, lane);
    online_softmax(s, state, p.scale_log2);
    add_values(state, s, stage + kBlockBytes, lane);
    __syncthreads();
  }
  float scale[2];
  normalise(state, scale);
  store_rows(p, tile, warp * 16, state.o, scale, lane);
}

template <int kWarps, bool kLong>
void launch(const AttentionParameters& parameters, int tiles, cudaStream_t stream) {
  constexpr int kSharedBytes = kWarps * 16 * kRowBytes + 2 * kStageBytes;
  check_launch(cudaFuncSetAttribute(attention_kernel<kWarps, kLong>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  attention_kernel<kWarps, kLong>
      <<<static_cast<unsigned>(tiles), kWarps * 32, kSharedBytes, stream>>>(parameters);
  check_launch(cudaGetLastError());
}

}  // namespace

void launch_long_sm80(const AttentionParameters& parameters, int tiles, cudaStream_t stream) {
  launch<8, true>(parameters, tiles, stream);
}

void launch_short_sm80(const AttentionParameters& parameters, int tiles, cudaStream_t stream) {
  launch<4, false>(parameters, tiles, stream);
}

}  // namespace tessera::kernels::cuda
