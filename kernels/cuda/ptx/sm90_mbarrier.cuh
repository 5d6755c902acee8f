#pragma once

// mbarriers in shared memory: PTX ISA 8.0, section "mbarrier". `address` is that of the barrier, in
// shared memory.

#include <cstdint>

namespace tessera::kernels::cuda::sm90 {

__device__ inline void mbarrier_init(std::uint32_t address, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals));
}

// Makes initialised barriers visible to the copy engine; a __syncthreads must follow.
__device__ inline void mbarrier_fence_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void mbarrier_arrive(std::uint32_t address) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
}

// Arrives and announces bytes that tensor copies will bring.
__device__ inline void mbarrier_arrive_expect_tx(std::uint32_t address, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(address),
               "r"(bytes)
               : "memory");
}

// Returns once the phase of the given parity has ended.
__device__ inline void mbarrier_wait(std::uint32_t address, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni ready;\n"
      "bra.uni again;\n"
      "ready:\n"
      "}" ::"r"(address),
      "r"(parity)
      : "memory");
}

// Whether that phase has ended.
__device__ inline bool mbarrier_test_wait(std::uint32_t address, int parity) {
  int over;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 done, [%1], %2;\n"
      "selp.b32 %0, 1, 0, done;\n"
      "}"
      : "=r"(over)
      : "r"(address), "r"(parity)
      : "memory");
  return over != 0;
}

// Position in a ring of kStages buffers. A full barrier is waited for with `parity`, an empty one
// with `parity ^ 1`, so that the first round through the ring finds all buffers empty.
template <int kStages>
struct RingState {
  int stage = 0;
  int parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Arrives at the barrier of this address in another block of the cluster. Says that this block has
// done with its own shared memory; it hands over nothing that threads wrote.
__device__ inline void mbarrier_arrive_cluster(std::uint32_t address, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(address),
      "r"(rank)
      : "memory");
}

}  // namespace tessera::kernels::cuda::sm90
