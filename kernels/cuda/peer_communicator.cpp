// The communicator over peer pointers: all GPUs in one process, each rank's kernels work directly
// on the others' memory.

#include "kernels/cuda/peer_communicator.hpp"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "kernels/communicator.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/cuda_check.hpp"
#include "kernels/cuda/peer_collectives.hpp"
#include "kernels/cuda/resources.hpp"
#include "kernels/host_meeting.hpp"

namespace tessera::kernels::cuda {
namespace {

class PeerBuffer final : public Buffer {
 public:
  PeerBuffer(std::unique_ptr<Buffer> own, const std::vector<void*>& of) : own_(std::move(own)) {
    std::ranges::copy(of, of_.of);
  }
  std::size_t bytes() const override { return own_->bytes(); }
  void* data() override { return own_->data(); }
  template <typename T>
  PeerPointers<T> pointers(std::int64_t offset) const {
    PeerPointers<T> typed;
    for (int i = 0; i < kPeersMax; ++i) {
      if (of_.of[i] != nullptr) typed.of[i] = static_cast<T*>(of_.of[i]) + offset;
    }
    return typed;
  }

 private:
  std::unique_ptr<Buffer> own_;
  PeerPointers<void> of_;
};

template <typename T>
PeerPointers<T> pointers(Buffer* buffer, std::int64_t offset = 0) {
  return dynamic_cast<const PeerBuffer&>(*buffer).pointers<T>(offset);
}

// High priority: a collective's few blocks should start as soon as blocks of a product end.
Stream make_urgent_stream() {
  int least = 0, greatest = 0;
  cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  return Stream(stream);
}

struct StagedRows {
  StagedRows(std::int64_t tokens)
      : host(static_cast<std::size_t>(tokens) * sizeof(std::int32_t), "rows of gathered keys"),
        device(host.bytes(), "rows of gathered keys") {}
  PinnedBuffer host;
  DeviceBuffer device;
  std::int64_t tokens = 0;
};

class PeerCommunicator final : public Communicator {
 public:
  PeerCommunicator(HostMeeting& meeting, int rank, CudaBackend& backend, std::uint64_t* progress,
                   const PeerBlocks& blocks)
      : meeting_(meeting), rank_(rank), backend_(backend), lane_stream_(make_urgent_stream()) {
    load_peer_kernels(size());
    inline_group_ = make_group(progress, blocks.alone);
    lane_group_ = make_group(progress + 1, blocks.beside);
    gather_group_ = make_group(progress + 2, blocks.alone);
    for (int i = 0; i < kLanes; ++i) {
      ready_.push_back(make_event());
      done_.push_back(make_event());
    }
  }

  void add_slots(std::int64_t max_tokens, int slots) {
    for (int i = 0; i < slots; ++i) rows_.push_back(std::make_unique<StagedRows>(max_tokens));
  }

  int rank() const override { return rank_; }
  int size() const override { return meeting_.size(); }

  std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) override {
    std::unique_ptr<Buffer> own = backend_.allocate(bytes, what);
    cuda_check(cudaStreamSynchronize(backend_.stream()));
    const std::vector<void*> of = meeting_.exchange(rank_, own->data());
    return std::make_unique<PeerBuffer>(std::move(own), of);
  }

  void reduce_norm(const ReduceNorm& op, int lane) override {
    if (backend_.replaying() || rehearsing_) return;
    const std::int64_t offset = op.first_row * op.hidden;
    PeerReduceNorm peer{.partial = pointers<const Bf16>(op.partial, offset),
                        .out = pointers<Bf16>(op.out, offset),
                        .weight = static_cast<const float*>(op.weight->data()),
                        .rows = backend_.launch_rows(op.rows),
                        .hidden = static_cast<int>(op.hidden),
                        .eps = op.eps,
                        .share_x = op.share_x};
    if (op.share_x) {
      peer.x = pointers<Bf16>(op.x, offset);
    } else {
      peer.x.of[rank_] = static_cast<Bf16*>(op.x->data()) + offset;
    }
    if (lane == kNoLane) {
      launch_peer_reduce_norm(inline_group_, peer, backend_.stream());
      return;
    }
    const auto i = static_cast<std::size_t>(lane);
    cuda_check(cudaEventRecord(ready_[i].get(), backend_.stream()));
    cuda_check(cudaStreamWaitEvent(lane_stream_.get(), ready_[i].get()));
    launch_peer_reduce_norm(lane_group_, peer, lane_stream_.get());
    cuda_check(cudaEventRecord(done_[i].get(), lane_stream_.get()));
  }

  void wait(int lane) override {
    if (lane == kNoLane || backend_.replaying() || rehearsing_) return;
    cuda_check(cudaStreamWaitEvent(backend_.stream(), done_[static_cast<std::size_t>(lane)].get()));
  }

  void stage_rows(int slot, std::span<const std::int32_t> kv_rows) override {
    StagedRows& rows = *rows_[static_cast<std::size_t>(slot)];
    CHECK(kv_rows.size_bytes() <= rows.host.bytes());
    std::ranges::copy(kv_rows, rows.host.as<std::int32_t>(0, kv_rows.size()).begin());
    rows.tokens = static_cast<std::int64_t>(kv_rows.size());
    if (kv_rows.empty()) return;
    cuda_check(cudaMemcpyAsync(rows.device.data(), rows.host.data(), kv_rows.size_bytes(),
                               cudaMemcpyHostToDevice, backend_.stream()));
  }

  bool needs_rehearsal() const override { return true; }
  void rehearse(bool on) override { rehearsing_ = on; }

  void gather_rows(const GatherRows& op) override {
    if (rehearsing_) return;
    StagedRows& rows = *rows_[static_cast<std::size_t>(op.slot)];
    launch_peer_gather_rows(
        gather_group_,
        {.gathered = pointers<Bf16>(op.gathered),
         .source = static_cast<const Bf16*>(op.source->data()) + op.source_column,
         .source_width = op.source_width,
         .width = static_cast<int>(op.width),
         .rows = rows.device.as<std::int32_t>(),
         .tokens = rows.tokens},
        backend_.stream());
  }

 private:
  PeerGroup make_group(std::uint64_t* progress, int blocks) {
    signals_.push_back(allocate(sizeof(PeerSignals), "signals between GPUs"));
    return {.rank = rank_,
            .size = size(),
            .blocks = std::min(blocks, kPeerBlocksMax),
            .signals = pointers<PeerSignals>(signals_.back().get()),
            .progress = progress};
  }

  HostMeeting& meeting_;
  const int rank_;
  CudaBackend& backend_;
  bool rehearsing_ = false;
  Stream lane_stream_;
  std::vector<std::unique_ptr<Buffer>> signals_;
  PeerGroup inline_group_;  // each has counts of its own, as the streams are not in one order
  PeerGroup lane_group_;
  PeerGroup gather_group_;
  std::vector<Event> ready_;
  std::vector<Event> done_;
  std::vector<std::unique_ptr<StagedRows>> rows_;  // of each slot
};

constexpr std::size_t kCountersPerRank = 8;  // a cache line

class PeerCommunicators final : public CommunicatorGroup {
 public:
  PeerCommunicators(std::span<const int> devices, const PeerBlocks& blocks)
      : devices_(devices.begin(), devices.end()),
        blocks_(blocks),
        meeting_(static_cast<int>(devices.size())),
        progress_(devices.size() * kCountersPerRank * sizeof(std::uint64_t), "progress counters") {
    std::ranges::fill(progress_.as<std::uint64_t>(0, devices_.size() * kCountersPerRank), 0);
    if (!reach_each_other(devices_)) {
      throw FatalError(
          "these GPUs cannot reach each other's memory; use NCCL for their group, or "
          "one worker for each");
    }
  }

  int size() const override { return meeting_.size(); }
  std::string_view transport() const override { return "peer memory"; }

  std::unique_ptr<Communicator> join(int rank, Backend& backend, const BatchLimits& limits,
                                     int slots) override {
    auto& gpu = dynamic_cast<CudaBackend&>(backend);
    CHECK(gpu.device() == devices_[static_cast<std::size_t>(rank)]);
    cuda_check(cudaSetDevice(gpu.device()));
    for (const int peer : devices_) {
      if (peer == gpu.device()) continue;
      const cudaError_t status = cudaDeviceEnablePeerAccess(peer, 0);
      if (status == cudaErrorPeerAccessAlreadyEnabled) {
        (void)cudaGetLastError();
      } else {
        cuda_check(status);
      }
    }
    meeting_.meet();
    auto communicator =
        std::make_unique<PeerCommunicator>(meeting_, rank, gpu, counters(rank).data(), blocks_);
    communicator->add_slots(limits.max_tokens, slots);
    return communicator;
  }

  void abort() override { meeting_.abort(); }

  std::uint64_t progress(int rank) const override {
    std::uint64_t sum = 0;
    for (std::uint64_t& count : counters(rank)) sum += std::atomic_ref(count).load();
    return sum;
  }

 private:
  std::span<std::uint64_t> counters(int rank) const {
    const std::size_t first = static_cast<std::size_t>(rank) * kCountersPerRank;
    return progress_.as<std::uint64_t>(first * sizeof(std::uint64_t), kCountersPerRank);
  }

  std::vector<int> devices_;
  PeerBlocks blocks_;
  HostMeeting meeting_;
  PinnedBuffer progress_;
};

}  // namespace

bool reach_each_other(std::span<const int> devices) {
  for (const int from : devices) {
    for (const int to : devices) {
      int can = 1;
      if (from != to) cuda_check(cudaDeviceCanAccessPeer(&can, from, to));
      if (can == 0) return false;
    }
  }
  return true;
}

std::unique_ptr<CommunicatorGroup> make_peer_communicators(std::span<const int> devices,
                                                           const PeerBlocks& blocks) {
  return std::make_unique<PeerCommunicators>(devices, blocks);
}

}  // namespace tessera::kernels::cuda
