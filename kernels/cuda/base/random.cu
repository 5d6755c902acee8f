// What timing and tests need on the device: reproducible numbers (a hash of the index, so any
// thread can make any), a comparison of bits, a fault and a hang.

#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"

namespace tessera::kernels::cuda {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
__device__ std::uint64_t hash(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

__global__ void fill_kernel(__nv_bfloat16* values, std::int64_t count, std::uint64_t seed,
                            float scale) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const auto top = static_cast<std::uint32_t>(hash(static_cast<std::uint64_t>(i) ^ hash(seed)) >>
                                                40);  // 24 bits
    const float unit = (static_cast<float>(top) + 0.5F) * 0x1p-23F - 1.0F;
    values[i] = __float2bfloat16(unit * scale);
  }
}

__global__ void count_kernel(unsigned* counter, const __nv_bfloat16* a, const __nv_bfloat16* b,
                             std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  unsigned different = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    different += __bfloat16_as_ushort(a[i]) != __bfloat16_as_ushort(b[i]) ? 1 : 0;
  }
  if (different > 0) {
    atomicAdd(counter, different);
  }
}

__global__ void fault_kernel(int* nowhere) { *nowhere = 1; }

__device__ std::uint64_t now_ns() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

__global__ void hang_kernel() {
  constexpr std::uint64_t kHangNs = 30'000'000'000;
  const std::uint64_t start = now_ns();
  while (now_ns() - start < kHangNs) {
  }
}

}  // namespace

void launch_fill_random(__nv_bfloat16* values, std::int64_t count, std::uint64_t seed,
                        cudaStream_t stream, float scale) {
  if (count > 0) {
    fill_kernel<<<2048, 256, 0, stream>>>(values, count, seed, scale);
    check_launch();
  }
}

void launch_count_different(unsigned* counter, const __nv_bfloat16* a, const __nv_bfloat16* b,
                            std::int64_t count, cudaStream_t stream) {
  count_kernel<<<256, 256, 0, stream>>>(counter, a, b, count);
  check_launch();
}

void launch_fault(cudaStream_t stream) {
  fault_kernel<<<1, 1, 0, stream>>>(reinterpret_cast<int*>(16));
  check_launch();
}

void load_failures() {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, fault_kernel));
  cuda_check(cudaFuncGetAttributes(&attributes, hang_kernel));
}

void launch_hang(cudaStream_t stream) {
  hang_kernel<<<1, 1, 0, stream>>>();
  check_launch();
}

}  // namespace tessera::kernels::cuda
