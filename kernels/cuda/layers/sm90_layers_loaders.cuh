#pragma once

// What brings the operands of the products of layers_sm90.cu. All products of all layers are one
// stream of stages, each some slices of 64 columns of a block's weight rows and of all activations.
// Weights do not depend on earlier steps: one thread loads them as soon as a stage is free, and two
// warps read ahead of it. Activations come when the step before has ended; the blocks of a cluster
// each load a part and send it to all.

#include "kernels/cuda/layers/sm90_layers_device.cuh"
#include "kernels/cuda/ptx/sm90_cluster.cuh"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_tma.cuh"

namespace tessera::kernels::cuda::layers {

// A ring of stages and its barriers, as addresses in shared memory. A stage has the weights first.
template <int kTokens>
class Stages {
 public:
  __device__ Stages(const Parameters& p, std::uint32_t memory, Barriers& barriers)
      : p_(p), memory_(memory), barriers_(barriers) {}

  __device__ std::uint32_t full(int stage) const {
    return sm90::shared_address(&barriers_.full[stage]);
  }
  __device__ std::uint32_t empty(int stage) const {
    return sm90::shared_address(&barriers_.empty[stage]);
  }
  __device__ std::uint32_t empty_in_all(int stage) const {
    return sm90::shared_address(&barriers_.empty_in_all[stage]);
  }
  __device__ std::uint32_t weights(int stage) const {
    return memory_ + static_cast<std::uint32_t>(stage * p_.stage_bytes);
  }
  __device__ std::uint32_t activations(const Product& product, int stage) const {
    return weights(stage) + static_cast<std::uint32_t>(product.slices() * product.weight_bytes());
  }

 private:
  const Parameters& p_;
  std::uint32_t memory_;
  Barriers& barriers_;
};

// One thread.
template <int kTokens>
__device__ void load_weights(const Parameters& p, const Stages<kTokens>& stages, ReadAhead& ahead) {
  Ring ring;
  for (int step = next_product(p, p.begin); step < p.end; step = next_product(p, step + 1)) {
    const int index = product_of(step);
    const Product product = p.products[index];
    const CUtensorMap* map = &p.layers[step / kLayerSteps].weights[index][product.slice_count];
    const int first_row = static_cast<int>(blockIdx.x) * product.tile_rows;
    for (int i = 0; i < product.stages; ++i) {
      sm90::mbarrier_wait(stages.empty(ring.stage), ring.parity ^ 1);
      sm90::mbarrier_arrive_expect_tx(
          stages.full(ring.stage), product.slices() * (product.tile_rows + kTokens) * kSwizzleRow);
      sm90::tma_load(stages.weights(ring.stage), map, stages.full(ring.stage), 0, first_row,
                     i << product.slice_count);
      atomicAdd(&ahead.loaded, product.slices() * product.weight_bytes());
      ring.advance(p.stages);
    }
  }
}

// Two warps. The ring is full whenever the products wait for something, and the memory would rest.
// So these read ahead of load_weights what it will want, one word of each sector, for the L2 cache
// to keep. Prefetch instructions will not do: they are dropped when many are on their way; and what
// is read as not to be allocated in the first-level cache does not stay in the second either.
constexpr int kAheadBytes = 192 << 10;  // of all blocks: half of the L2 cache
// Words of a thread on their way. More would fill the memory's queues, and what the small steps
// read would come later.
constexpr int kWordsAtOnce = 6;

__device__ inline void read_ahead(const Parameters& p, ReadAhead& ahead, int thread) {
  constexpr int kSector = 32;  // bytes
  // One lane looks, for its warp.
  const auto look = [&] {
    return __shfl_sync(~0U, thread % 32 == 0 ? atomicAdd(&ahead.loaded, 0) : 0, 0);
  };
  int loaded = 0;
  std::uint32_t all = 0;
  int position = 0;  // as `loaded` counts
  for (int step = next_product(p, p.begin); step < p.end; step = next_product(p, step + 1)) {
    const int index = product_of(step);
    const Product& product = p.products[index];
    const int first_row = static_cast<int>(blockIdx.x) * product.tile_rows;
    const int rows = min(product.tile_rows, product.n - first_row);
    const int row_bytes = product.k * 2;
    const char* stage =
        reinterpret_cast<const char*>(p.layers[step / kLayerSteps].matrices[index]) +
        std::int64_t{first_row} * row_bytes;
    const int shift = product.slice_count + 2;  // 1 << shift sectors of a row are in a stage
    for (int i = 0; i < product.stages; ++i) {
      while (position > (loaded = look()) + kAheadBytes) __nanosleep(40);
      const int sectors = position < loaded || rows <= 0 ? 0 : rows << shift;
#pragma unroll 1
      for (int first = thread; first < sectors; first += kReaders * kWordsAtOnce) {
        std::uint32_t words[kWordsAtOnce];
#pragma unroll
        for (int j = 0; j < kWordsAtOnce; ++j) {
          const int at = min(first + kReaders * j, sectors - 1);
          const int row = at >> shift;
          const char* sector = stage + row * row_bytes + (at - (row << shift)) * kSector;
          asm volatile("ld.global.u32 %0, [%1];" : "=r"(words[j]) : "l"(sector));
        }
#pragma unroll
        for (const std::uint32_t word : words) all ^= word;
      }
      position += product.slices() * product.weight_bytes();
      stage += kSwizzleRow << product.slice_count;
    }
  }
  *static_cast<volatile std::uint32_t*>(&ahead.words[thread]) = all;  // so that the loads stay
}

// One thread. A stage of fewer slices than the cluster has blocks is brought by some of them only;
// which, depends on its place in the ring. The others must not wait for it: without them it may
// come, pass and be free again before they look, and its barrier would have the parity that it had
// before. A block that brings a stage at some place brings each one there, so it misses none; and
// when a product begins, all blocks have done with the one before.
template <int kTokens>
__device__ void load_activations(const Parameters& p, const Stages<kTokens>& stages) {
  const int rank = sm90::cluster_rank();
  const int all = (1 << p.cluster) - 1;
  Ring ring;
  for (int step = next_product(p, p.begin); step < p.end; step = next_product(p, step + 1)) {
    const int index = product_of(step);
    const Product product = p.products[index];
    const CUtensorMap* map = &p.in[index];
    const int together = max(product.slices() / p.cluster, 1);
    const auto offset = static_cast<std::uint32_t>(product.slices() * product.weight_bytes());
    wait_for_step_before(p, step);
    sm90::fence_proxy_async();
    for (int i = 0; i < product.stages; ++i) {
      const int slice = ((rank + ring.stage) & (p.cluster - 1)) * together;
      if (slice < product.slices()) {
        sm90::mbarrier_wait(stages.empty_in_all(ring.stage), ring.parity ^ 1);
        sm90::tma_load_multicast(stages.weights(ring.stage) + offset +
                                     static_cast<std::uint32_t>(slice * kTokens * kSwizzleRow),
                                 map, stages.full(ring.stage), 0, 0,
                                 (i << product.slice_count) + slice, all);
      }
      ring.advance(p.stages);
    }
  }
}

}  // namespace tessera::kernels::cuda::layers
