// Matrix products with fused epilogues on Hopper.
//
// One persistent block an SM computes tiles of 128 x 256 outputs. A producer thread keeps four
// slices of 64 columns of both operands on their way; two warpgroups multiply 64 x 256 each. The
// second warpgroup starts every tile a few slices after the first, so that each works on its
// results while the other multiplies. Both draw on the same ring of slices, so that hides no more
// of an epilogue than the lag is long; the tensor cores wait for the rest. Results go from
// registers to memory, sixteen bytes a lane.

#include "common/check.hpp"
#include "kernels/cuda/cuda_check.hpp"
#include "kernels/cuda/epilogue_math.cuh"
#include "kernels/cuda/gemm_sm90.hpp"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/quad.cuh"
#include "kernels/cuda/tensor_map.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kTileRows = 128;
constexpr int kTileColumns = 256;
constexpr int kSlice = 64;  // of k: 128 bytes, one swizzled row
constexpr int kStages = 4;
constexpr int kLag = 3;  // slices between the two warpgroups
constexpr int kConsumers = 2;
constexpr int kThreads = (1 + kConsumers) * 128;
constexpr int kRowsPerGroup = kTileRows / kConsumers;
constexpr int kInBytes = kTileRows * kSlice * 2;
constexpr int kWeightBytes = kTileColumns * kSlice * 2;
constexpr int kGroupBytes = 8 * 128;
constexpr int kHeadWidth = 128;
// Tiles of this many row blocks are worked on before the next ones, so that the rows stay in the
// L2 cache while the weight passes by.
constexpr int kRowBlocksTogether = 16;

struct __align__(1024) SharedMemory {
  unsigned char in[kStages][kInBytes];
  unsigned char weight[kStages][kWeightBytes];
  float norms[2][kHeadWidth];  // of q and of k heads
  std::uint64_t full[kStages], empty[kStages];
};

struct Problem {
  CUtensorMap in;
  CUtensorMap weight;
  __nv_bfloat16* out;
  const float* mean_squares;
  std::int64_t out_stride;
  int rows;
  int row_blocks;
  int column_blocks;
  int slices;
};

struct TileIndex {
  int row_block;
  int column_block;
};

__device__ TileIndex tile_index(const Problem& p, int tile) {
  const int per_band = kRowBlocksTogether * p.column_blocks;
  const int first = tile / per_band * kRowBlocksTogether;
  const int height = min(kRowBlocksTogether, p.row_blocks - first);
  const int inside = tile % per_band;
  return {first + inside % height, inside / height};
}

using Ring = hopper::RingState<kStages>;

__device__ void produce(const Problem& p, SharedMemory& shared) {
  Ring ring;
  const int tiles = p.row_blocks * p.column_blocks;
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const TileIndex at = tile_index(p, tile);
    for (int slice = 0; slice < p.slices; ++slice) {
      const std::uint32_t full = hopper::shared_address(&shared.full[ring.stage]);
      hopper::wait(hopper::shared_address(&shared.empty[ring.stage]), ring.parity ^ 1);
      hopper::arrive_expect(full, kInBytes + kWeightBytes);
      hopper::copy_box(hopper::shared_address(shared.in[ring.stage]), &p.in, full, slice * kSlice,
                       at.row_block * kTileRows, 0);
      hopper::copy_box(hopper::shared_address(shared.weight[ring.stage]), &p.weight, full,
                       slice * kSlice, at.column_block * kTileColumns, 0);
      ring.advance();
    }
  }
}

// The accumulators d[n][i] of a lane: columns n * 8 + lane % 4 * 2 + i % 2 of rows `row` + i / 2
// * 8. An epilogue may ask for what it reads from memory while the last products run.
template <typename Epilogue>
__device__ void consume(const Problem& p, const Epilogue& epilogue, SharedMemory& shared,
                        int group) {
  constexpr int kStartBarrier = 1;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = group * kRowsPerGroup + static_cast<int>(threadIdx.x % 128) / 32 * 16;
  const int tiles = p.row_blocks * p.column_blocks;
  Ring ring;
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) hopper::arrive(hopper::shared_address(&shared.empty[stage]));
  };
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const TileIndex at = tile_index(p, tile);
    const int row = at.row_block * kTileRows + warp_row + lane / 4;
    typename Epilogue::State state;
    epilogue.begin(p, state, row);
    float d[32][4];
    int previous = 0;
    if (group == 1) hopper::sync_named(kStartBarrier, kConsumers * 128);
    for (int slice = 0; slice < p.slices; ++slice) {
      hopper::wait(hopper::shared_address(&shared.full[ring.stage]), ring.parity);
      const std::uint64_t in = hopper::descriptor(
          hopper::shared_address(shared.in[ring.stage]) + group * kRowsPerGroup * 128, kGroupBytes,
          0);
      const std::uint64_t weight =
          hopper::descriptor(hopper::shared_address(shared.weight[ring.stage]), kGroupBytes, 0);
      hopper::products_begin();
#pragma unroll
      for (int i = 0; i < kSlice / 16; ++i) {
        hopper::product(d, in + i * 2, weight + i * 2, i > 0 || slice > 0);
      }
      hopper::products_commit();
      if (slice > 0) {
        hopper::products_wait<1>();
        release(previous);
      }
      if (group == 0 && slice == kLag) hopper::arrive_named(kStartBarrier, kConsumers * 128);
      previous = ring.stage;
      ring.advance();
    }
    epilogue.prefetch(state, lane);
    hopper::products_wait<0>();
    hopper::products_ready(d);
    release(previous);
    epilogue.store(p, shared, state, d, row, at.column_block, lane);
  }
}

// Writes columns n * 8 .. n * 8 + 31 of one row of each lane's two: `half` names it.
__device__ void store_quad(const Problem& p, std::uint32_t (&words)[4], int row,
                           std::int64_t column, int lane) {
  transpose_quad(words, lane);
  if (row < p.rows) {
    *reinterpret_cast<uint4*>(p.out + row * p.out_stride + column + (lane & 3) * 8) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

struct PlainEpilogue {
  struct State {};
  __device__ void begin(const Problem&, State&, int) const {}
  __device__ void prefetch(State&, int) const {}
  __device__ void store(const Problem& p, const SharedMemory&, const State&,
                        const float (&d)[32][4], int row, int column_block, int lane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < 32; n += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          words[i] = pack_bf16(d[n + i][half * 2], d[n + i][half * 2 + 1]);
        }
        store_quad(p, words, row + half * 8, column_block * kTileColumns + n * 8, lane);
      }
    }
  }
};

// The mean squares of a lane's two rows.
__device__ void load_mean_squares(float (&m)[2], const Problem& p, int row) {
#pragma unroll
  for (int half = 0; half < 2; ++half) m[half] = p.mean_squares[min(row + half * 8, p.rows - 1)];
}

// Gate in the even groups of eight columns, up in the odd ones.
struct SwigluEpilogue {
  struct State {
    float m[2];
  };
  __device__ void begin(const Problem& p, State& state, int row) const {
    load_mean_squares(state.m, p, row);
  }
  __device__ void prefetch(State&, int) const {}

  __device__ void store(const Problem& p, const SharedMemory&, const State& state,
                        const float (&d)[32][4], int row, int column_block, int lane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = row_scale(state.m[half]);
#pragma unroll
      for (int n = 0; n < 32; n += 8) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float gate[2] = {d[n + 2 * i][half * 2], d[n + 2 * i][half * 2 + 1]};
          float up[2] = {d[n + 2 * i + 1][half * 2], d[n + 2 * i + 1][half * 2 + 1]};
          round_pair_to_bf16(gate[0], gate[1]);
          round_pair_to_bf16(up[0], up[1]);
          words[i] =
              pack_bf16(silu_times(gate[0], up[0], scale), silu_times(gate[1], up[1], scale));
        }
        store_quad(p, words, row + half * 8, column_block * (kTileColumns / 2) + n * 4, lane);
      }
    }
  }
};

// Four lanes hold a row of a head, each of them both members of the pairs (i, i + 64).
struct HeadEpilogue {
  struct Angles {
    float2 cosine[8], sine[8];
  };
  struct State {
    float m[2];
    int position[2];
    Angles angles;  // of the first row
  };
  HeadNormRope options;

  __device__ void begin(const Problem& p, State& state, int row) const {
    load_mean_squares(state.m, p, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.position[half] = options.positions[min(row + half * 8, p.rows - 1)];
    }
  }

  __device__ void prefetch(State& state, int lane) const {
    load(state.angles, state.position[0], lane);
  }

  __device__ void store(const Problem& p, const SharedMemory& shared, const State& state,
                        float (&d)[32][4], int row, int column_block, int lane) const {
    Angles second;
    load(second, state.position[1], lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int head = 0; head < kTileColumns / kHeadWidth; ++head) {
        const int index = column_block * (kTileColumns / kHeadWidth) + head;
        if (index < options.num_q + options.num_k) {
          norm_and_rotate(d, head * 16, half, shared.norms[index < options.num_q ? 0 : 1],
                          state.m[half], half == 0 ? state.angles : second, lane);
        } else {
          scale_head(d, head * 16, half, row_scale(state.m[half]));
        }
#pragma unroll
        for (int n = head * 16; n < head * 16 + 16; n += 4) {
          std::uint32_t words[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            words[i] = pack_bf16(d[n + i][half * 2], d[n + i][half * 2 + 1]);
          }
          store_quad(p, words, row + half * 8, column_block * kTileColumns + n * 8, lane);
        }
      }
    }
  }

 private:
  __device__ static void scale_head(float (&d)[32][4], int first, int half, float scale) {
#pragma unroll
    for (int n = 0; n < kHeadWidth / 8; ++n) {
      float* pair = d[first + n] + half * 2;
      round_pair_to_bf16(pair[0], pair[1]);
      pair[0] = __fmul_rn(pair[0], scale);
      pair[1] = __fmul_rn(pair[1], scale);
    }
  }

  __device__ void load(Angles& angles, int position, int lane) const {
    const float* row = options.rope_table + static_cast<std::int64_t>(position) * kHeadWidth;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int column = n * 8 + (lane & 3) * 2;
      angles.cosine[n] = __ldg(reinterpret_cast<const float2*>(row + column));
      angles.sine[n] = __ldg(reinterpret_cast<const float2*>(row + kHeadWidth / 2 + column));
    }
  }

  __device__ void norm_and_rotate(float (&d)[32][4], int first, int half, const float* weight,
                                  float m, const Angles& angles, int lane) const {
    float sums[8];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      float* low = d[first + n] + half * 2;
      float* high = d[first + n + 8] + half * 2;
      round_pair_to_bf16(low[0], low[1]);
      round_pair_to_bf16(high[0], high[1]);
      sums[n] = partial_square_sum(low[0], low[1], high[0], high[1]);
    }
#pragma unroll
    for (int distance = 1; distance < 8; distance *= 2) {
#pragma unroll
      for (int n = 0; n < 8; n += 2 * distance) sums[n] = __fadd_rn(sums[n], sums[n + distance]);
    }
    float sum = __fadd_rn(sums[0], __shfl_xor_sync(~0U, sums[0], 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 2));
    const float scale = head_scale(sum, options.eps, m);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int column = n * 8 + (lane & 3) * 2;
      const float2 low = *reinterpret_cast<const float2*>(weight + column);
      const float2 high = *reinterpret_cast<const float2*>(weight + kHeadWidth / 2 + column);
      norm_and_rotate_pair(d[first + n][half * 2], d[first + n + 8][half * 2], scale, low.x, high.x,
                           angles.cosine[n].x, angles.sine[n].x);
      norm_and_rotate_pair(d[first + n][half * 2 + 1], d[first + n + 8][half * 2 + 1], scale, low.y,
                           high.y, angles.cosine[n].y, angles.sine[n].y);
    }
  }
};

__device__ void copy_norms(const HeadEpilogue& epilogue, SharedMemory& shared) {
  if (threadIdx.x < kHeadWidth) {
    shared.norms[0][threadIdx.x] = epilogue.options.q_norm[threadIdx.x];
    shared.norms[1][threadIdx.x] = epilogue.options.k_norm[threadIdx.x];
  }
}
template <typename Other>
__device__ void copy_norms(const Other&, SharedMemory&) {}

template <typename Epilogue>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_kernel(const __grid_constant__ Problem p, const __grid_constant__ Epilogue epilogue) {
  extern __shared__ unsigned char raw[];
  const std::uint32_t misaligned = hopper::shared_address(raw) & 1023;
  SharedMemory& shared = *reinterpret_cast<SharedMemory*>(raw + ((1024 - misaligned) & 1023));
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::init_barrier(hopper::shared_address(&shared.full[i]), 1);
      hopper::init_barrier(hopper::shared_address(&shared.empty[i]), kConsumers * 4);
    }
    hopper::fence_barrier_init();
  }
  copy_norms(epilogue, shared);
  __syncthreads();
  if (threadIdx.x < 128) {
    hopper::give_registers<40>();
    if (threadIdx.x == 0) produce(p, shared);
  } else {
    hopper::take_registers<232>();
    consume(p, epilogue, shared, static_cast<int>(threadIdx.x / 128) - 1);
  }
}

CUtensorMap make_map(const __nv_bfloat16* data, std::int64_t rows, std::int64_t k, int box_rows) {
  return make_tensor_map(
      {.data = data,
       .size = {static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(rows), 1},
       .stride_bytes = {static_cast<std::uint64_t>(k) * 2,
                        static_cast<std::uint64_t>(rows * k) * 2},
       .box = {kSlice, static_cast<std::uint32_t>(box_rows), 1}});
}

template <typename Epilogue>
void launch(const FusedGemmArguments& a, std::int64_t out_stride, const Epilogue& epilogue,
            int num_sms, cudaStream_t stream) {
  CHECK(a.n % kTileColumns == 0 && a.k % kSlice == 0 && a.k / kSlice > kLag);
  if (a.rows == 0) return;
  const auto row_blocks = static_cast<int>((a.rows + kTileRows - 1) / kTileRows);
  const auto column_blocks = static_cast<int>(a.n / kTileColumns);
  const Problem problem{.in = make_map(a.in, a.rows, a.k, kTileRows),
                        .weight = make_map(a.weight, a.n, a.k, kTileColumns),
                        .out = a.out,
                        .mean_squares = a.mean_squares,
                        .out_stride = out_stride,
                        .rows = static_cast<int>(a.rows),
                        .row_blocks = row_blocks,
                        .column_blocks = column_blocks,
                        .slices = static_cast<int>(a.k / kSlice)};
  constexpr int kSharedBytes = sizeof(SharedMemory) + 1024;
  cuda_check(cudaFuncSetAttribute(gemm_kernel<Epilogue>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int blocks = row_blocks * column_blocks < num_sms ? row_blocks * column_blocks : num_sms;
  gemm_kernel<<<static_cast<unsigned>(blocks), kThreads, kSharedBytes, stream>>>(problem, epilogue);
  check_launch();
}

}  // namespace

bool fused_gemm_supports(int compute_capability, std::int64_t n, std::int64_t k) {
  return compute_capability == 90 && n % kTileColumns == 0 && k % kSlice == 0 && k / kSlice > kLag;
}

void launch_plain_gemm(const FusedGemmArguments& arguments, int num_sms, cudaStream_t stream) {
  launch(arguments, arguments.n, PlainEpilogue{}, num_sms, stream);
}

void launch_swiglu_gemm(const FusedGemmArguments& arguments, int num_sms, cudaStream_t stream) {
  CHECK(arguments.mean_squares != nullptr);
  launch(arguments, arguments.n / 2, SwigluEpilogue{}, num_sms, stream);
}

void launch_qk_norm_rope_gemm(const FusedGemmArguments& arguments, const HeadNormRope& options,
                              int num_sms, cudaStream_t stream) {
  CHECK(arguments.mean_squares != nullptr);
  launch(arguments, arguments.n, HeadEpilogue{options}, num_sms, stream);
}

}  // namespace tessera::kernels::cuda
