#pragma once

// Tensor copies by the copy engine (TMA) from global to shared memory: PTX ISA 8.0, section
// "cp.async.bulk.tensor". The bytes that arrive are counted by an mbarrier.

#include <cuda.h>

#include <cstdint>

namespace tessera::kernels::cuda::sm90 {

__device__ inline void tma_load(std::uint32_t to, const CUtensorMap* map, std::uint32_t barrier,
                                int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}

__device__ inline void tma_load(std::uint32_t to, const CUtensorMap* map, std::uint32_t barrier,
                                int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

// Orders memory that threads wrote before what the copy engine reads from it, and the reverse.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

// A copy to the same place in every block of the cluster that `blocks` has a bit for; each block's
// own barrier counts the bytes.
__device__ inline void tma_load_multicast(std::uint32_t to, const CUtensorMap* map,
                                          std::uint32_t barrier, int x, int y, int z, int blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(static_cast<std::uint16_t>(blocks))
      : "memory");
}

}  // namespace tessera::kernels::cuda::sm90
