// Collectives over peer pointers, one kernel each, without NVLink multicast. The blocks of a launch
// stay on the GPU until it ends, and block b of every rank meets block b of the others: before
// reading (all partial sums are there) and after writing. A launch ends when each of its blocks has
// met all peers', that is when all ranks have written everything.

#include <algorithm>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/vector.cuh"
#include "kernels/cuda/group/peer_collectives.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;

__device__ void store_release(std::uint32_t* to, std::uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

__device__ void store_relaxed(std::uint32_t* to, std::uint32_t value) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

__device__ std::uint32_t load_relaxed(const std::uint32_t* from) {
  std::uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ std::uint32_t load_acquire(const std::uint32_t* from) {
  std::uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// What earlier kernels of this stream wrote is in the GPU's L2 cache, where peers read it, so the
// first meeting of a launch orders nothing more; the last one makes this launch's writes to peers
// seen before the signal is.
enum class Meeting { kFirst, kLast };

// All threads of block b on all ranks. Thread i writes to and waits for rank i.
template <Meeting kMeeting>
__device__ void meet(const PeerGroup& group) {
  __syncthreads();
  PeerSignals& own = *group.signals.of[group.rank];
  const int block = static_cast<int>(blockIdx.x);
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < group.size) {
    const std::uint32_t count = own.count[block] + 1;
    if (peer == 0 && block == 0 && group.progress != nullptr) *group.progress = count;
    std::uint32_t* to = &group.signals.of[peer]->arrived[block][group.rank];
    const std::uint32_t* from = &own.arrived[block][peer];
    if constexpr (kMeeting == Meeting::kFirst) {
      store_relaxed(to, count);
      while (static_cast<std::int32_t>(load_relaxed(from) - count) < 0) {
      }
    } else {
      store_release(to, count);
      while (static_cast<std::int32_t>(load_acquire(from) - count) < 0) {
      }
    }
  }
  __syncthreads();
  if (peer == 0) own.count[block] += 1;
}

// A row is the work of a team of four warps, so that few rows still have all of their loads from
// other GPUs, some 2 us each, on their way at once.
constexpr int kTeamThreads = 128;
constexpr int kTeams = kThreads / kTeamThreads;

// Sum over a team; the order is fixed.
__device__ float team_sum(float value) {
  __shared__ float sums[kThreads / 32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int team = warp / (kTeamThreads / 32);
  value = group_sum<32>(value);
  if (threadIdx.x % 32 == 0) sums[warp] = value;
  asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(kTeamThreads) : "memory");
  float total = 0;
#pragma unroll
  for (int i = 0; i < kTeamThreads / 32; ++i) total += sums[team * (kTeamThreads / 32) + i];
  asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(kTeamThreads) : "memory");
  return total;
}

// This rank's rows; results go to all ranks or, but for the mean squares, stay here. kVectors:
// 16-byte vectors of a row that a thread holds.
template <int kRanks, int kVectors, bool kEverywhere>
__device__ void reduce_rows(int rank, const PeerReduceAdd& op) {
  const int thread = static_cast<int>(threadIdx.x) % kTeamThreads;
  const int team = static_cast<int>(threadIdx.x) / kTeamThreads;
  const int vectors = op.hidden / kVectorWidth;
  const std::int64_t share = (op.rows + kRanks - 1) / kRanks;
  const std::int64_t end = min(op.rows, share * (rank + 1));
  const std::int64_t step = std::int64_t{kTeams} * gridDim.x;
  for (std::int64_t row = share * rank + team * std::int64_t{gridDim.x} + blockIdx.x; row < end;
       row += step) {
    const std::int64_t first = row * vectors;
    Bf16x8 parts[kVectors][kRanks];
    Bf16x8 held[kVectors];
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int at = thread + kTeamThreads * i;
      if (at < vectors) {
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
          parts[i][r] = reinterpret_cast<const Bf16x8*>(op.partial.of[r])[first + at];
        }
        held[i] = reinterpret_cast<const Bf16x8*>(op.x.of[rank])[first + at];
      }
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int at = thread + kTeamThreads * i;
      if (at < vectors) {
        float sum[kVectorWidth] = {};
        float values[kVectorWidth];
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
          to_float(parts[i][r], values);
#pragma unroll
          for (int j = 0; j < kVectorWidth; ++j) sum[j] += values[j];
        }
        // Rounded before the residual is added, as a product that adds to it does on one GPU.
        to_float(to_bf16(sum), sum);
        to_float(held[i], values);
#pragma unroll
        for (int j = 0; j < kVectorWidth; ++j) sum[j] += values[j];
        const Bf16x8 result = to_bf16(sum);
        to_float(result, sum);
#pragma unroll
        for (const float value : sum) squares = fmaf(value, value, squares);
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
          if (kEverywhere || r == rank) reinterpret_cast<Bf16x8*>(op.x.of[r])[first + at] = result;
        }
      }
    }
    if (op.mean_squares.of[rank] != nullptr) {
      const float mean = team_sum(squares) / static_cast<float>(op.hidden) + op.eps;
      if (thread < kRanks) op.mean_squares.of[thread][row] = mean;
    }
  }
}

template <int kRanks, int kVectors>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_add_kernel(const __grid_constant__ PeerGroup group,
                      const __grid_constant__ PeerReduceAdd op) {
  meet<Meeting::kFirst>(group);
  reduce_rows<kRanks, kVectors, true>(group.rank, op);
  meet<Meeting::kLast>(group);
}

__device__ void wait_for_flags(const PeerFlags& flags) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < flags.size && peer != flags.rank) {
    while (load_acquire(flags.own + peer) != flags.value) {
    }
  }
  __syncthreads();
}

// What the copy engines brought lies in this GPU's memory.
template <int kRanks, int kVectors>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_arrived_kernel(const __grid_constant__ PeerFlags flags,
                          const __grid_constant__ PeerReduceAdd op) {
  if (threadIdx.x == 0 && blockIdx.x == 0 && flags.progress != nullptr) {
    *flags.progress = *flags.progress + 1;
  }
  wait_for_flags(flags);
  reduce_rows<kRanks, kVectors, false>(flags.rank, op);
}

__global__ void wait_kernel(const __grid_constant__ PeerFlags flags) { wait_for_flags(flags); }

// One warp per row at a time; rows are a few kilobytes.
__global__ void __launch_bounds__(kThreads, 1)
    gather_rows_kernel(const __grid_constant__ PeerGroup group,
                       const __grid_constant__ PeerGatherRows op) {
  allow_next_kernel();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int vectors = op.width / kVectorWidth;
  wait_for_previous_kernel();
  const std::int64_t tokens = op.rows[0];
  const std::int32_t* rows = op.rows + kGatherHeader;
  const std::int64_t step = std::int64_t{kWarps} * gridDim.x;
  for (std::int64_t t = warp * std::int64_t{gridDim.x} + blockIdx.x; t < tokens; t += step) {
    const auto* from = reinterpret_cast<const Bf16x8*>(op.source + t * op.source_width);
    const std::int32_t row = rows[t];
    const bool everywhere = row >= 0;
    const std::int64_t first = std::int64_t{everywhere ? row : -1 - row} * vectors;
#pragma unroll 4
    for (int at = lane; at < vectors; at += 32) {
      const Bf16x8 value = from[at];
      for (int r = 0; r < group.size; ++r) {
        // Each rank starts with another peer, so that they do not all write to the same one.
        const int to = (group.rank + r) % group.size;
        if (everywhere || r == 0) {
          reinterpret_cast<Bf16x8*>(op.gathered.of[to])[first + at] = value;
        }
      }
    }
  }
  meet<Meeting::kLast>(group);
}

using ReduceAddKernel = void (*)(PeerGroup, PeerReduceAdd);
using ReduceArrivedKernel = void (*)(PeerFlags, PeerReduceAdd);
struct Kernels {
  ReduceAddKernel reduce_add;
  ReduceArrivedKernel reduce_arrived;
};

// 1024, 2560 and 4096 are the widths of the three model sizes.
template <int kRanks>
Kernels kernels_for(int vectors) {
  if (vectors <= kTeamThreads) {
    return {reduce_add_kernel<kRanks, 1>, reduce_arrived_kernel<kRanks, 1>};
  }
  if (vectors <= kTeamThreads * 3) {
    return {reduce_add_kernel<kRanks, 3>, reduce_arrived_kernel<kRanks, 3>};
  }
  if (vectors <= kTeamThreads * 4) {
    return {reduce_add_kernel<kRanks, 4>, reduce_arrived_kernel<kRanks, 4>};
  }
  return {reduce_add_kernel<kRanks, 8>, reduce_arrived_kernel<kRanks, 8>};
}

Kernels kernels_for(int ranks, int vectors) {
  CHECK(ranks == 1 || ranks == 2 || ranks == 4 || ranks == 8);
  if (ranks == 1) return kernels_for<1>(vectors);
  if (ranks == 2) return kernels_for<2>(vectors);
  return ranks == 4 ? kernels_for<4>(vectors) : kernels_for<8>(vectors);
}

// As many blocks as there are rows for, equal on all ranks.
int blocks_for(const PeerGroup& group, std::int64_t rows_of_rank) {
  const std::int64_t useful = (rows_of_rank + kTeams - 1) / kTeams;
  return static_cast<int>(std::clamp<std::int64_t>(useful, 1, group.blocks));
}

}  // namespace

void load_peer_kernels(int size) {
  cudaFuncAttributes attributes{};
  for (const int vectors : {kTeamThreads, kTeamThreads * 3, kTeamThreads * 4, kTeamThreads * 8}) {
    cuda_check(cudaFuncGetAttributes(&attributes, kernels_for(size, vectors).reduce_add));
    cuda_check(cudaFuncGetAttributes(&attributes, kernels_for(size, vectors).reduce_arrived));
  }
  cuda_check(cudaFuncGetAttributes(&attributes, gather_rows_kernel));
  cuda_check(cudaFuncGetAttributes(&attributes, wait_kernel));
}

void launch_peer_reduce_add(const PeerGroup& group, const PeerReduceAdd& op, cudaStream_t stream) {
  CHECK(op.hidden % kVectorWidth == 0 && op.hidden <= 8192);
  CHECK(group.blocks >= 1 && group.blocks <= kPeerBlocksMax);
  const int blocks = blocks_for(group, (op.rows + group.size - 1) / group.size);
  const ReduceAddKernel kernel = kernels_for(group.size, op.hidden / kVectorWidth).reduce_add;
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(group, op);
  check_launch();
}

void launch_reduce_arrived(const PeerFlags& flags, const PeerReduceAdd& op, cudaStream_t stream) {
  CHECK(op.hidden % kVectorWidth == 0 && op.hidden <= 8192);
  const std::int64_t rows = (op.rows + flags.size - 1) / flags.size;
  const auto blocks = static_cast<unsigned>(std::clamp<std::int64_t>(rows / kTeams, 1, 132));
  const ReduceArrivedKernel kernel =
      kernels_for(flags.size, op.hidden / kVectorWidth).reduce_arrived;
  kernel<<<blocks, kThreads, 0, stream>>>(flags, op);
  check_launch();
}

void launch_wait(const PeerFlags& flags, cudaStream_t stream) {
  wait_kernel<<<1, 32, 0, stream>>>(flags);
  check_launch();
}

// The ranks' numbers of tokens differ, so the number of blocks may not depend on them.
void launch_peer_gather_rows(const PeerGroup& group, const PeerGatherRows& op,
                             cudaStream_t stream) {
  CHECK(op.width % kVectorWidth == 0 && op.source_width % kVectorWidth == 0);
  launch_dependent(gather_rows_kernel, dim3(static_cast<unsigned>(group.blocks)), dim3(kThreads), 0,
                   stream, group, op);
}

}  // namespace tessera::kernels::cuda
