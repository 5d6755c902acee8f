#pragma once

// Clusters, whose blocks reach each other's shared memory: PTX ISA 8.0, section "barrier.cluster".

#include <cstdint>

namespace tessera::kernels::cuda::sm90 {

__device__ inline int cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

}  // namespace tessera::kernels::cuda::sm90
