// Matrix products with fused epilogues on Hopper.
//
// One persistent block an SM computes tiles of 128 x 256 outputs. A producer thread keeps four
// slices of 64 columns of both operands on their way; two warpgroups multiply 64 x 256 each. What
// is left to do with a tile's sums is done by the same warps between the slices of the next tile
// (gemm_epilogues_sm90.cuh), whose products run meanwhile.

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/tensor_map.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/products/sm90_gemm_epilogues.cuh"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_tma.cuh"
#include "kernels/cuda/ptx/sm90_warpgroup.cuh"
#include "kernels/cuda/ptx/sm90_wgmma.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kTileRows = 128;
constexpr int kSlice = 64;  // of k: 128 bytes, one swizzled row
constexpr int kStages = 4;
constexpr int kConsumers = 2;
constexpr int kThreads = (1 + kConsumers) * 128;
constexpr int kRowsPerGroup = kTileRows / kConsumers;
constexpr int kInBytes = kTileRows * kSlice * 2;
constexpr int kWeightBytes = kTileColumns * kSlice * 2;
constexpr int kGroupBytes = 8 * 128;
// Tiles of this many row blocks are worked on before the next ones, so that the rows stay in the
// L2 cache while the weight passes by.
constexpr int kRowBlocksTogether = 16;

struct __align__(1024) SharedMemory {
  unsigned char in[kStages][kInBytes];
  unsigned char weight[kStages][kWeightBytes];
  HeadNorms norms;
  std::uint64_t full[kStages], empty[kStages];
};

struct Problem {
  CUtensorMap in;
  CUtensorMap weight;
  GemmOutput output;
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

using Ring = sm90::RingState<kStages>;

// A lane holds columns 8 n + 2 q and the one behind it of its rows, q = lane % 4, for all n. They
// are to be results 8 q .. 8 q + 7 of some group, so rows of the weight whose number differs by 8
// (16 where gate and up alternate by eights) lie behind one another, first those with remainder 0
// and 1, then 2 and 3, ...
template <int kPeriod>
CUtensorMap make_weight_map(const Product& a) {
  const auto row_bytes = static_cast<std::uint64_t>(a.k) * 2;
  return make_tensor_map({.data = a.weight,
                          .rank = 4,
                          .size = {static_cast<std::uint64_t>(a.k), 2,
                                   static_cast<std::uint64_t>(a.n) / kPeriod, kPeriod / 2},
                          .stride_bytes = {row_bytes, kPeriod * row_bytes, 2 * row_bytes},
                          .box = {kSlice, 2, kTileColumns / kPeriod, kPeriod / 2}});
}

template <typename Epilogue>
__device__ void produce(const Problem& p, SharedMemory& shared) {
  Ring ring;
  const int tiles = p.row_blocks * p.column_blocks;
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const TileIndex at = tile_index(p, tile);
    for (int slice = 0; slice < p.slices; ++slice) {
      const std::uint32_t full = sm90::shared_address(&shared.full[ring.stage]);
      sm90::mbarrier_wait(sm90::shared_address(&shared.empty[ring.stage]), ring.parity ^ 1);
      sm90::mbarrier_arrive_expect_tx(full, kInBytes + kWeightBytes);
      sm90::tma_load(sm90::shared_address(shared.in[ring.stage]), &p.in, full, slice * kSlice,
                     at.row_block * kTileRows, 0);
      sm90::tma_load(sm90::shared_address(shared.weight[ring.stage]), &p.weight, full,
                     slice * kSlice, 0, at.column_block * (kTileColumns / Epilogue::kPeriod), 0);
      ring.advance();
    }
  }
}

// The accumulators d[n][i] of a lane belong to rows `row` + i / 2 * 8. They are only rounded when a
// tile ends; what the epilogue makes of them is made and stored step by step between the slices of
// the next tile. So the tensor cores hardly wait, and the blocks, which all end their tiles at
// about the same time, do not store all at once, which would be more than the L2 cache takes.
template <typename Epilogue>
__device__ void consume(const Problem& p, const Epilogue& epilogue, SharedMemory& shared,
                        int group) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = group * kRowsPerGroup + static_cast<int>(threadIdx.x % 128) / 32 * 16;
  const int tiles = p.row_blocks * p.column_blocks;
  const bool two_steps_a_slice = p.slices < Epilogue::kSteps;  // else one
  Ring ring;
  RoundedTile rounded;
  typename Epilogue::State state;
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) sm90::mbarrier_arrive(sm90::shared_address(&shared.empty[stage]));
  };
  const int first_tile = static_cast<int>(blockIdx.x);
  for (int tile = first_tile; tile < tiles; tile += static_cast<int>(gridDim.x)) {
    float d[kTileColumns / 8][4];
    int slice = 0;
    int previous = 0;
    const auto multiply = [&] {
      sm90::mbarrier_wait(sm90::shared_address(&shared.full[ring.stage]), ring.parity);
      const std::uint64_t in = sm90::wgmma_descriptor(
          sm90::shared_address(shared.in[ring.stage]) + group * kRowsPerGroup * 128, kGroupBytes,
          0);
      const std::uint64_t weight =
          sm90::wgmma_descriptor(sm90::shared_address(shared.weight[ring.stage]), kGroupBytes, 0);
      sm90::warpgroup_arrive();
#pragma unroll
      for (int i = 0; i < kSlice / 16; ++i) {
        sm90::wgmma(d, in + i * 2, weight + i * 2, i > 0 || slice > 0);
      }
      sm90::warpgroup_commit();
      if (slice > 0) {
        sm90::warpgroup_wait<1>();
        release(previous);
      }
      previous = ring.stage;
      ring.advance();
      ++slice;
    };
#pragma unroll
    for (int step = 0; step < Epilogue::kSteps; ++step) {
      if (slice < p.slices && (step % 2 == 0 || !two_steps_a_slice)) multiply();
      if (tile != first_tile) epilogue.step(p.output, shared.norms, state, rounded, step, lane);
    }
    while (slice < p.slices) multiply();
    const TileIndex at = tile_index(p, tile);
    const int row = at.row_block * kTileRows + warp_row + lane / 4;
    rounded.aim(p.output, row, at.column_block, Epilogue::kColumns, lane);
    epilogue.begin(p.output, state, row);
    sm90::warpgroup_wait<0>();
    sm90::warpgroup_results(d);
    release(previous);
    rounded.round(d);
  }
#pragma unroll
  for (int step = 0; step < Epilogue::kSteps; ++step) {
    epilogue.step(p.output, shared.norms, state, rounded, step, lane);
  }
}

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
  const std::uint32_t misaligned = sm90::shared_address(raw) & 1023;
  SharedMemory& shared = *reinterpret_cast<SharedMemory*>(raw + ((1024 - misaligned) & 1023));
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      sm90::mbarrier_init(sm90::shared_address(&shared.full[i]), 1);
      sm90::mbarrier_init(sm90::shared_address(&shared.empty[i]), kConsumers * 4);
    }
    sm90::mbarrier_fence_init();
  }
  copy_norms(epilogue, shared);
  __syncthreads();
  if (threadIdx.x < 128) {
    sm90::reg_dealloc<24>();
    if (threadIdx.x == 0) produce<Epilogue>(p, shared);
  } else {
    sm90::reg_alloc<240>();
    // Of the warp, not the thread: so the compiler keeps it in a uniform register.
    const auto group = __shfl_sync(~0U, threadIdx.x / 128, 0) - 1;
    consume(p, epilogue, shared, static_cast<int>(group));
  }
}

template <typename Epilogue>
void launch(const Product& a, std::int64_t out_stride, const Epilogue& epilogue, int num_sms,
            cudaStream_t stream) {
  CHECK(a.n % kTileColumns == 0 && a.k % kSlice == 0);
  if (a.rows == 0) return;
  const auto row_blocks = static_cast<int>((a.rows + kTileRows - 1) / kTileRows);
  const auto column_blocks = static_cast<int>(a.n / kTileColumns);
  const auto row_bytes = static_cast<std::uint64_t>(a.k) * 2;
  const auto rows = static_cast<std::uint64_t>(a.rows);
  const Problem problem{.in = make_tensor_map({.data = a.in,
                                               .size = {static_cast<std::uint64_t>(a.k), rows, 1},
                                               .stride_bytes = {row_bytes, rows * row_bytes},
                                               .box = {kSlice, kTileRows, 1}}),
                        .weight = make_weight_map<Epilogue::kPeriod>(a),
                        .output = {.data = a.out,
                                   .mean_squares = a.mean_squares,
                                   .stride = out_stride,
                                   .rows = static_cast<int>(a.rows)},
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
  return compute_capability == 90 && n % kTileColumns == 0 && k % kSlice == 0;
}

void launch_fused_gemm(const Product& product, int num_sms, cudaStream_t stream) {
  switch (product.form) {
    case Product::Form::kStore:
      return launch(product, product.n, PlainEpilogue{}, num_sms, stream);
    case Product::Form::kAdd:
      return launch(product, product.n, SumEpilogue{}, num_sms, stream);
    case Product::Form::kSwiglu:
      CHECK(product.mean_squares != nullptr);
      return launch(product, product.n / 2, SwigluEpilogue{}, num_sms, stream);
  }
}

void launch_qk_norm_rope_gemm(const Product& product, const HeadNormRope& options, int num_sms,
                              cudaStream_t stream) {
  CHECK(product.mean_squares != nullptr);
  launch(product, product.n, HeadEpilogue{options}, num_sms, stream);
}

}  // namespace tessera::kernels::cuda
