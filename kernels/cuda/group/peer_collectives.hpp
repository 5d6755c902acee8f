#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

// Kernels in which the GPUs of one host work on each other's memory through peer pointers. All
// ranks launch the same operations in the same order; a launch waits on the GPU for the other
// ranks', so each rank's launches must be able to run whatever another rank does on its own GPU.
namespace tessera::kernels::cuda {

inline constexpr int kPeersMax = 8;
inline constexpr int kPeerBlocksMax = 64;

// Device memory through which the ranks' blocks meet; one per lane and rank, zeroed at start.
// Counts only rise: a block adds one per meeting and waits until all peers' counts have reached its
// own, so nothing is ever reset and a recorded graph can be replayed.
struct PeerSignals {
  std::uint32_t arrived[kPeerBlocksMax][kPeersMax];  // written by peer [.][rank]
  std::uint32_t count[kPeerBlocksMax];               // own
};

// The ranks' views of one buffer: address of rank i's, from here.
template <typename T>
struct PeerPointers {
  T* of[kPeersMax] = {};
};

struct PeerGroup {
  int rank = 0;
  int size = 1;
  int blocks = kPeerBlocksMax;  // equal on all ranks
  PeerPointers<PeerSignals> signals;
  volatile std::uint64_t* progress =
      nullptr;  // page-locked host memory: times block 0 has come to meet
};

// Loads the kernels' code for groups of this size onto the current device.
void load_peer_kernels(int size);

// See Communicator::ReduceAdd. Each rank reads its rows of all partial sums, adds them in float32
// in rank order to its residual rows, and writes those and their mean squares to all ranks. Per
// rank and direction the links carry (size - 1) / size * rows * hidden * 4 bytes. hidden <= 8192. A
// group of one adds without any link.
struct PeerReduceAdd {
  PeerPointers<const __nv_bfloat16> partial;
  PeerPointers<__nv_bfloat16> x;
  PeerPointers<float> mean_squares;  // null: not wanted
  std::int64_t rows = 0;
  int hidden = 0;
  float eps = 1e-6F;
};
void launch_peer_reduce_add(const PeerGroup& group, const PeerReduceAdd& operation,
                            cudaStream_t stream);

// The same where copy engines move the rows, so that the multiprocessors stay with the matrix
// products: a flag of each peer, set by a copy behind the peer's data, says that it has arrived.
struct PeerFlags {
  int rank = 0;
  int size = 1;
  const std::uint32_t* own = nullptr;  // [size], in this GPU's memory
  std::uint32_t value = 0;             // once all peers' flags have it
  volatile std::uint64_t* progress = nullptr;
};
// partial.of[r]: rank r's part, in this GPU's memory. Of x it writes only this rank's.
void launch_reduce_arrived(const PeerFlags& flags, const PeerReduceAdd& operation,
                           cudaStream_t stream);
void launch_wait(const PeerFlags& flags, cudaStream_t stream);

// See Communicator::GatherRows: row t of source, from source_column on, goes to row kv_rows[t] of
// all ranks' gathered, or to row -1 - kv_rows[t] of this rank's.
inline constexpr int kGatherHeader = 4;
struct PeerGatherRows {
  PeerPointers<__nv_bfloat16> gathered;
  const __nv_bfloat16* source = nullptr;  // first element of the column in row 0
  std::int64_t source_width = 0;
  int width = 0;
  // Device memory, so that a recorded graph serves other batches: how many tokens there are, three
  // unused numbers, then a row for each.
  const std::int32_t* rows = nullptr;
};
void launch_peer_gather_rows(const PeerGroup& group, const PeerGatherRows& operation,
                             cudaStream_t stream);

}  // namespace tessera::kernels::cuda
