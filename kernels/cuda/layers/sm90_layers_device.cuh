#pragma once

// What the warps of layers_sm90.cu share: the launch's parameters, the shared memory, and how a
// step waits for the one before it.

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/layers/sm90_layers.hpp"

namespace tessera::kernels::cuda::layers {

constexpr int kSlice = 64;        // of k: 128 bytes, one swizzled row
constexpr int kSwizzleRow = 128;  // bytes
constexpr int kGroupBytes = 8 * kSwizzleRow;
constexpr int kStagesMax = 12;
constexpr int kCounterStride = 8;  // in words, so that steps do not share a sector
constexpr int kConsumers = 128;    // threads
constexpr int kHelperWarps = 4;
constexpr int kHelpers = kHelperWarps * 32;
constexpr int kHeadWidth = 128;
constexpr int kConsumerBarrier = 1;
constexpr int kHelperBarrier = 2;

// One of a layer's four products. The weight's rows are dealt out evenly, tile_rows to a block.
struct Product {
  int n, k;
  int tile_rows;    // a multiple of 8
  int slice_count;  // of one stage: 1 << slice_count
  int stages;       // of the whole product
  __device__ int slices() const { return 1 << slice_count; }
  __device__ int weight_bytes() const { return tile_rows * kSwizzleRow; }  // of one slice
};
constexpr int kProducts = 4;
constexpr int kSliceCounts = 4;

struct LayerEntry {
  CUtensorMap weights[kProducts][kSliceCounts];  // box: 64 of k x tile_rows x 1 << i slices
  const __nv_bfloat16* matrices[kProducts];      // the same weights
  const float* q_norm;
  const float* k_norm;
};

struct Parameters {
  CUtensorMap in[kProducts];  // box: 64 of k x tokens x slices that one block brings at once
  const LayerEntry* layers;
  Product products[kProducts];
  int begin, end;
  int rows;
  int cluster, stages, stage_bytes;
  float eps;
  __nv_bfloat16* x;
  __nv_bfloat16* qkv;
  __nv_bfloat16* attention;
  __nv_bfloat16* mlp;
  unsigned* done;       // blocks that have done a step, kCounterStride apart
  float* mean_squares;  // [tokens] of x before qkv, for RoPE
  const std::int32_t* positions;
  const std::int32_t* first_rows;
  const std::int32_t* num_rows;
  int num_sequences;
  int num_q, num_kv;
  int log2_group;  // query heads of a kv head
  const float* rope_table;
  float scale_log2;
  std::uint64_t* trace;
};

struct Barriers {
  std::uint64_t full[kStagesMax];
  std::uint64_t empty[kStagesMax];         // of this block: weights may come
  std::uint64_t empty_in_all[kStagesMax];  // of all blocks of the cluster: activations may
};

// Two warps read weights ahead.
constexpr int kReaders = 64;  // threads
struct ReadAhead {
  int loaded;  // bytes of weights that load_weights has asked for
  std::uint32_t words[kReaders];
};

// Position in the ring of stages; their number is known at the launch only.
struct Ring {
  int stage = 0;
  int parity = 0;
  __device__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

__device__ inline LayerStep step_of(int step) { return static_cast<LayerStep>(step % kLayerSteps); }

// Which product a step is, or -1.
__device__ inline int product_of(int step) {
  switch (step_of(step)) {
    case LayerStep::kQkv:
      return 0;
    case LayerStep::kO:
      return 1;
    case LayerStep::kGateUp:
      return 2;
    case LayerStep::kDown:
      return 3;
    default:
      return -1;
  }
}

// The next product from this step on, or p.end.
__device__ inline int next_product(const Parameters& p, int step) {
  while (step < p.end && product_of(step) < 0) ++step;
  return step;
}

__device__ inline unsigned* counter(const Parameters& p, int step) {
  return p.done + (step - p.begin) * kCounterStride;
}

// Returns once every block has done the step before this one.
__device__ inline void wait_for_step_before(const Parameters& p, int step) {
  if (step == p.begin) return;
  const unsigned* done = counter(p, step - 1);
  unsigned seen = 0;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(done) : "memory");
  } while (seen < gridDim.x);
}

// By one thread, after a barrier behind all that its block wrote.
__device__ inline void announce(const Parameters& p, int step) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter(p, step)) : "memory");
}

__device__ inline void trace(const Parameters& p, int step, int which) {
  if (p.trace != nullptr && blockIdx.x == 0) {
    std::uint64_t now = 0;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    p.trace[2 * (step - p.begin) + which] = now;
  }
}

}  // namespace tessera::kernels::cuda::layers
