#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "kernels/backend.hpp"

namespace tessera::kernels {

// What one rank of a group of GPUs (or of CPU threads) does together with the others. Every call is
// collective: all ranks make the same calls in the same order, each from the thread that owns its
// backend. Operations are queued: each starts when all that the backend had queued before the call
// is done, and what the backend queues after the operation's `wait` comes after it. Sums are taken
// in rank order, so all ranks hold the same bits and every run gives the same. A failure throws
// FatalError. Memory is taken only by `allocate`, at start.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Memory of this rank that the others reach too; all ranks ask for the same size.
  virtual std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) = 0;

  // Tensor parallelism: the end of a row-split product, as reduce-scatter, the residual of this
  // rank's rows, all-gather. Rank r sums the rows from r * ceil(rows / size) on. The buffers come
  // from `allocate`.
  struct ReduceAdd {
    Buffer* partial = nullptr;       // [rows, hidden] activation type, this rank's part
    Buffer* x = nullptr;             // [rows, hidden] residual type, the same on every rank
    Buffer* mean_squares = nullptr;  // [rows] float32, may be null
    std::int64_t first_row = 0;      // of all three
    std::int64_t rows = 0;
    std::int64_t hidden = 0;
    float eps = 1e-6F;  // in mean_squares
  };
  // Whether reduce_add takes `mean_squares`, and writes mean(x^2) + eps of all rows, of which each
  // rank then measures its share only.
  virtual bool measures_rows() const { return false; }
  // x += sum of the ranks' partials. In a lane it runs beside what the backend does meanwhile, and
  // `wait(lane)` orders the backend behind the lane's last one: then `partial` may be overwritten
  // and x read. With kNoLane it runs among the backend's own operations, which costs less where
  // there is nothing to run beside.
  virtual void reduce_add(const ReduceAdd& operation, int lane) = 0;
  virtual void wait(int lane) = 0;
  // A good moment for the lane's next step, if it has one: the backend has something else to do
  // before and after it.
  virtual void advance(int) {}
  // Comes before operations that are no part of what the lanes are under way with, in a recorded
  // pass say: the backend is ordered behind whatever could be in their way.
  virtual void settle() {}
  // Memory for reduce_add in lanes, `bytes` being those of `partial`.
  virtual void prepare_lanes(std::size_t) {}
  static constexpr int kLanes = 2;
  static constexpr int kNoLane = -1;

  // A batch split along its tokens: each rank puts rows of `source` where all ranks' attention
  // reads them. Token t of this rank goes to row kv_rows[t] of `gathered` on every rank, or, when
  // kv_rows[t] is below 0, to row -1 - kv_rows[t] of this rank's alone. Ranks may have different
  // numbers of tokens. `stage_rows` comes once a batch; kv_rows may be dropped on return.
  virtual void stage_rows(int slot, std::span<const std::int32_t> kv_rows) = 0;
  struct GatherRows {
    Buffer* gathered = nullptr;  // * [rows of the group, width] activation type
    Buffer* source = nullptr;    //   [tokens, source_width] activation type
    std::int64_t source_width = 0;
    std::int64_t source_column = 0;
    std::int64_t width = 0;
    int slot = 0;
  };
  // What the backend queues after it finds all rows in place. The ranks do not wait for each other
  // before they write, so calls must take turns with two `gathered` buffers.
  virtual void gather_rows(const GatherRows& operation) = 0;

  // While rehearsing, operations do nothing, so that a rank can run alone, and nothing is recorded.
  // Where it is needed, all ranks rehearse whatever they may run before their first joint pass: a
  // GPU that loads a kernel's code waits for what runs on it, and what runs may be waiting for
  // another rank, which in turn waits to launch while code is loaded.
  virtual bool needs_rehearsal() const { return false; }
  virtual void rehearse(bool) {}
};

// What the ranks of one process share; made before their threads. Outlives its communicators.
class CommunicatorGroup {
 public:
  virtual ~CommunicatorGroup() = default;
  virtual int size() const = 0;
  virtual std::string_view transport() const = 0;  // "threads", "peer memory", "NCCL 2.28.9"
  virtual bool gathers() const { return true; }    // its communicators have gather_rows

  // Called once by each rank's thread; returns when all ranks have. `limits` bounds stage_rows.
  virtual std::unique_ptr<Communicator> join(int rank, Backend& backend, const BatchLimits& limits,
                                             int slots) = 0;
  // Any thread: wakes the ranks that wait for others on the host; their calls throw FatalError.
  virtual void abort() = 0;
  // Any thread: how often a rank has come to wait for the others. A watchdog takes a standstill for
  // a hang, and the rank that is behind for its cause.
  virtual std::uint64_t progress(int rank) const = 0;
};

// Over threads of this process, for backends that compute in host memory.
std::unique_ptr<CommunicatorGroup> make_thread_communicators(int size);

enum class Transport : std::uint8_t {
  kAuto,  // peer memory where all GPUs reach each other, NCCL elsewhere
  kPeer,  // our kernels over peer pointers
  kNccl,
};
// Throws FatalError with one sentence when the devices cannot work together this way.
std::unique_ptr<CommunicatorGroup> make_cuda_communicators(std::span<const int> devices,
                                                           Transport transport);

}  // namespace tessera::kernels
