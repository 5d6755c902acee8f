// The communicator over peer pointers: all GPUs in one process, each rank's kernels work directly
// on the others' memory.

#include "kernels/cuda/group/peer_communicator.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kernels/communicator.hpp"
#include "kernels/cuda/backend/cuda_backend.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/group/peer_collectives.hpp"
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

struct StagedRows {
  StagedRows(std::int64_t tokens)
      : host(static_cast<std::size_t>(tokens + kGatherHeader) * sizeof(std::int32_t),
             "rows of gathered keys"),
        device(host.bytes(), "rows of gathered keys") {}
  PinnedBuffer host;
  DeviceBuffer device;
};

class PeerCommunicator final : public Communicator {
 public:
  PeerCommunicator(HostMeeting& meeting, int rank, CudaBackend& backend, std::uint64_t* progress,
                   const PeerBlocks& blocks)
      : meeting_(meeting),
        rank_(rank),
        backend_(backend),
        copies_(static_cast<std::size_t>(meeting.size())) {
    load_peer_kernels(size());
    inline_group_ = make_group(progress, blocks.alone);
    gather_group_ = make_group(progress + 3, blocks.alone);
    for (LaneState& lane : lanes_) lane.progress = progress++ + 1;
  }

  void add_slots(std::int64_t max_tokens, int slots) {
    for (int i = 0; i < slots; ++i) rows_.push_back(std::make_unique<StagedRows>(max_tokens));
  }

  int rank() const override { return rank_; }
  bool measures_rows() const override { return true; }
  int size() const override { return meeting_.size(); }

  std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) override {
    std::unique_ptr<Buffer> own = backend_.allocate(bytes, what);
    cuda_check(cudaStreamSynchronize(backend_.stream()));
    const std::vector<void*> of = meeting_.exchange(rank_, own->data());
    return std::make_unique<PeerBuffer>(std::move(own), of);
  }

  void reduce_add(const ReduceAdd& op, int lane) override {
    if (rehearsing_) return;
    const std::int64_t offset = op.first_row * op.hidden;
    PeerReduceAdd peer{.partial = pointers<const Bf16>(op.partial, offset),
                       .x = pointers<Bf16>(op.x, offset),
                       .rows = backend_.launch_rows(op.rows),
                       .hidden = static_cast<int>(op.hidden),
                       .eps = op.eps};
    if (op.mean_squares != nullptr) {
      peer.mean_squares = pointers<float>(op.mean_squares, op.first_row);
    }
    if (lane == kNoLane) {
      launch_peer_reduce_add(inline_group_, peer, backend_.stream());
      return;
    }
    scatter(op, peer, lanes_[static_cast<std::size_t>(lane)]);
  }

  void prepare_lanes(std::size_t bytes) override {
    received_ = allocate(bytes, "sums received from the group");
    flags_ = allocate(kLanes * 2 * kPeersMax * sizeof(std::uint32_t), "flags between GPUs");
    std::vector<std::uint32_t> values(kFlagValues);
    std::iota(values.begin(), values.end(), 1U);
    flag_values_ = std::make_unique<DeviceBuffer>(values.size() * sizeof(std::uint32_t), "flags");
    copy_to_device(flag_values_->data(), values.data(), flag_values_->bytes());
    for (Stream& stream : copies_) stream = make_stream();
  }

  void advance(int lane) override {
    LaneState& state = lanes_[static_cast<std::size_t>(lane)];
    if (state.step != Step::kScattered) return;
    launch_reduce_arrived(flags(state, kSums), state.local, backend_.stream());
    cuda_check(cudaEventRecord(state.ready.get(), backend_.stream()));
    const std::int64_t count = state.share * state.hidden;
    const std::int64_t own = state.first + rank_ * count;
    to_each_peer(state, kRows, [&](int peer, cudaStream_t stream) {
      copy(stream, state.x.of[peer] + own, state.x.of[rank_] + own, own_count(state));
    });
    state.step = Step::kGathering;
  }

  void wait(int lane) override {
    if (lane == kNoLane || rehearsing_) return;
    LaneState& state = lanes_[static_cast<std::size_t>(lane)];
    advance(lane);
    if (state.step == Step::kGathering) launch_wait(flags(state, kRows), backend_.stream());
    state.step = Step::kIdle;
  }

  void stage_rows(int slot, std::span<const std::int32_t> kv_rows) override {
    StagedRows& rows = *rows_[static_cast<std::size_t>(slot)];
    const std::size_t count = kv_rows.size() + kGatherHeader;
    CHECK(count * sizeof(std::int32_t) <= rows.host.bytes());
    const auto staged = rows.host.as<std::int32_t>(0, count);
    staged[0] = static_cast<std::int32_t>(kv_rows.size());
    std::ranges::copy(kv_rows, staged.begin() + kGatherHeader);
    cuda_check(cudaMemcpyAsync(rows.device.data(), rows.host.data(), staged.size_bytes(),
                               cudaMemcpyHostToDevice, backend_.stream()));
  }

  bool needs_rehearsal() const override { return true; }
  void rehearse(bool on) override {
    rehearsing_ = on;
    backend_.use_graphs(!on);
  }

  void gather_rows(const GatherRows& op) override {
    if (rehearsing_) return;
    StagedRows& rows = *rows_[static_cast<std::size_t>(op.slot)];
    launch_peer_gather_rows(
        gather_group_,
        {.gathered = pointers<Bf16>(op.gathered),
         .source = static_cast<const Bf16*>(op.source->data()) + op.source_column,
         .source_width = op.source_width,
         .width = static_cast<int>(op.width),
         .rows = rows.device.as<std::int32_t>()},
        backend_.stream());
  }

 private:
  enum class Step : std::uint8_t { kIdle, kScattered, kGathering };
  enum Phase : int { kSums = 0, kRows = 1 };  // whose flags

  // One operation under way: partial sums to the ranks that sum their rows, then the rows to all
  // ranks. Copy engines move the data. A rank starts the next operation
  // of a lane only when it has all rows of the last one, so each has consumed what it received by
  // then, and flags need no more than another value than the last.
  struct LaneState {
    Event ready = make_event();
    std::uint64_t* progress = nullptr;
    Step step = Step::kIdle;
    std::uint32_t operations = 0;
    std::int64_t share = 0, rows = 0, hidden = 0;
    std::int64_t first = 0;  // element of the lane's first row
    PeerReduceAdd local;     // on this rank's own memory
    PeerPointers<Bf16> x;    // of the whole buffer
  };
  static constexpr std::uint32_t kFlagValues = 1024;

  void scatter(const ReduceAdd& op, const PeerReduceAdd& peer, LaneState& state) {
    CHECK(state.step == Step::kIdle && received_ != nullptr);
    ++state.operations;
    state.rows = peer.rows;
    state.hidden = op.hidden;
    state.share = (peer.rows + size() - 1) / size();
    state.first = op.first_row * op.hidden;
    state.x = pointers<Bf16>(op.x);
    state.local = peer;
    const auto partial = pointers<Bf16>(op.partial);
    const auto received = pointers<Bf16>(received_.get());
    const std::int64_t count = state.share * state.hidden;
    // Rank r's part of my rows lies at block r of the lane's received rows; the kernel counts rows
    // from the lane's first.
    for (int r = 0; r < size(); ++r) {
      state.local.partial.of[r] = r == rank_
                                      ? partial.of[rank_] + state.first
                                      : received.of[rank_] + state.first + (r - rank_) * count;
    }
    cuda_check(cudaEventRecord(state.ready.get(), backend_.stream()));
    to_each_peer(state, kSums, [&](int to, cudaStream_t stream) {
      const std::int64_t rows =
          std::clamp<std::int64_t>(state.rows - to * state.share, 0, state.share);
      copy(stream, received.of[to] + state.first + rank_ * count,
           partial.of[rank_] + state.first + to * count, rows * state.hidden);
    });
    state.step = Step::kScattered;
  }

  std::int64_t own_count(const LaneState& state) const {
    return std::clamp<std::int64_t>(state.rows - rank_ * state.share, 0, state.share) *
           state.hidden;
  }

  template <typename Send>
  void to_each_peer(const LaneState& state, Phase phase, Send send) {
    const auto all = pointers<std::uint32_t>(flags_.get());
    for (int k = 1; k < size(); ++k) {
      const int peer = (rank_ + k) % size();
      const cudaStream_t stream = copies_[static_cast<std::size_t>(peer)].get();
      cuda_check(cudaStreamWaitEvent(stream, state.ready.get()));
      send(peer, stream);
      copy(stream, all.of[peer] + flag_index(state, phase) + rank_,
           flag_values_->as<std::uint32_t>() + state.operations % kFlagValues, 1);
    }
  }

  template <typename T>
  static void copy(cudaStream_t stream, T* to, const T* from, std::int64_t count) {
    if (count == 0) return;
    cuda_check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(T),
                               cudaMemcpyDeviceToDevice, stream));
  }

  int flag_index(const LaneState& state, Phase phase) const {
    return (static_cast<int>(&state - lanes_.data()) * 2 + phase) * kPeersMax;
  }
  PeerFlags flags(const LaneState& state, Phase phase) {
    return {.rank = rank_,
            .size = size(),
            .own = static_cast<std::uint32_t*>(flags_->data()) + flag_index(state, phase),
            .value = state.operations % kFlagValues + 1,
            .progress = phase == kSums ? state.progress : nullptr};
  }

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
  std::vector<std::unique_ptr<Buffer>> signals_;
  PeerGroup inline_group_;
  PeerGroup gather_group_;
  std::array<LaneState, kLanes> lanes_;
  std::vector<Stream> copies_;        // one to each peer
  std::unique_ptr<Buffer> received_;  // as large as partial
  std::unique_ptr<Buffer> flags_;     // [lane][phase][rank]
  std::unique_ptr<DeviceBuffer> flag_values_;
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
