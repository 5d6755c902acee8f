#include "kernels/cuda/group/nccl_communicator.hpp"

#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/backend/cuda_backend.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/group/peer_collectives.hpp"
#include "kernels/host_meeting.hpp"

namespace tessera::kernels::cuda {
namespace {

// The functions in use, found once.
class Nccl {
 public:
  static const Nccl& get() {
    static const Nccl library;
    return library;
  }

  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRank) comm_init_rank;
  decltype(&ncclCommDestroy) comm_destroy;
  decltype(&ncclReduceScatter) reduce_scatter;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclGetErrorString) get_error_string;

  void check(ncclResult_t result, const char* what) const {
    if (result != ncclSuccess) {
      throw FatalError(std::string("NCCL failed to ") + what + ": " + get_error_string(result));
    }
  }

 private:
  Nccl() {
    // Multicast over NVLink can take GPUs of a shared host out of service when a process dies.
    ::setenv("NCCL_NVLS_ENABLE", "0", 1);
    library_ = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) {
      throw FatalError("this group needs NCCL, and libnccl.so.2 was not found");
    }
    find(get_version, "ncclGetVersion");
    find(get_unique_id, "ncclGetUniqueId");
    find(comm_init_rank, "ncclCommInitRank");
    find(comm_destroy, "ncclCommDestroy");
    find(reduce_scatter, "ncclReduceScatter");
    find(all_gather, "ncclAllGather");
    find(get_error_string, "ncclGetErrorString");
  }

  template <typename Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(library_, name));
    if (function == nullptr) throw FatalError(std::string("libnccl.so.2 has no ") + name);
  }

  void* library_ = nullptr;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(HostMeeting& meeting, int rank, CudaBackend& backend, const ncclUniqueId& id,
                   std::uint64_t* progress)
      : meeting_(meeting), rank_(rank), backend_(backend), nccl_(Nccl::get()) {
    load_peer_kernels(1);
    nccl_.check(nccl_.comm_init_rank(&comm_, size(), id, rank), "connect the ranks");
    lane_stream_ = make_stream();
    for (int i = 0; i < kLanes; ++i) {
      ready_.push_back(make_event());
      done_.push_back(make_event());
    }
    signals_ = std::make_unique<DeviceBuffer>(sizeof(PeerSignals), "progress");
    cuda_check(cudaMemset(signals_->data(), 0, signals_->bytes()));
    alone_.signals.of[0] = signals_->as<PeerSignals>();
    alone_.progress = progress;
  }
  ~NcclCommunicator() override { (void)nccl_.comm_destroy(comm_); }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return meeting_.size(); }

  std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) override {
    // The largest buffer asked for is the one of the partial sums, or as large as it.
    const std::size_t share = bytes / static_cast<std::size_t>(size()) + kShareAlignment;
    if (reduced_ == nullptr || reduced_->bytes() < share) {
      reduced_ = backend_.allocate(share, "this rank's sums");
    }
    return backend_.allocate(bytes, what);
  }

  void reduce_add(const ReduceAdd& op, int lane) override {
    if (rehearsing_) return;
    if (lane == kNoLane) {
      run(op, backend_.stream());
      return;
    }
    const auto i = static_cast<std::size_t>(lane);
    cuda_check(cudaEventRecord(ready_[i].get(), backend_.stream()));
    cuda_check(cudaStreamWaitEvent(lane_stream_.get(), ready_[i].get()));
    run(op, lane_stream_.get());
    cuda_check(cudaEventRecord(done_[i].get(), lane_stream_.get()));
  }

  void wait(int lane) override {
    if (lane == kNoLane || rehearsing_) return;
    cuda_check(cudaStreamWaitEvent(backend_.stream(), done_[static_cast<std::size_t>(lane)].get()));
  }

  // One communicator and one buffer of sums serve both streams.
  void settle() override {
    for (const Event& done : done_) {
      cuda_check(cudaStreamWaitEvent(backend_.stream(), done.get()));
    }
  }

  void stage_rows(int, std::span<const std::int32_t>) override { refuse(); }
  void gather_rows(const GatherRows&) override { refuse(); }
  bool needs_rehearsal() const override { return true; }
  void rehearse(bool on) override {
    rehearsing_ = on;
    backend_.use_graphs(!on);
  }

 private:
  static constexpr std::size_t kShareAlignment = std::size_t{1} << 20;

  [[noreturn]] static void refuse() {
    throw FatalError("a group over NCCL splits weights, not tokens");
  }

  // Every rank takes an equal share, so the last rows of all ranks together may lie behind the
  // batch: buffers are larger by a row multiple, and what is there is finite and unused.
  void run(const ReduceAdd& op, cudaStream_t stream) {
    const std::int64_t rows = backend_.launch_rows(op.rows);
    const std::int64_t share = (rows + size() - 1) / size();
    const auto count = static_cast<std::size_t>(share * op.hidden);
    CHECK(count * sizeof(Bf16) <= reduced_->bytes());
    const std::int64_t first = op.first_row * op.hidden;
    const std::int64_t own = first + share * rank_ * op.hidden;
    auto* x = static_cast<Bf16*>(op.x->data());
    auto* reduced = static_cast<Bf16*>(reduced_->data());
    nccl_.check(nccl_.reduce_scatter(static_cast<const Bf16*>(op.partial->data()) + first, reduced,
                                     count, ncclBfloat16, ncclSum, comm_, stream),
                "reduce and scatter");
    PeerReduceAdd add{.rows = share, .hidden = static_cast<int>(op.hidden)};
    add.partial.of[0] = reduced;
    add.x.of[0] = x + own;
    launch_peer_reduce_add(alone_, add, stream);
    gather(x + first, x + own, count, stream);
  }

  void gather(Bf16* all, const Bf16* own, std::size_t count, cudaStream_t stream) {
    nccl_.check(nccl_.all_gather(own, all, count, ncclBfloat16, comm_, stream), "gather");
  }

  HostMeeting& meeting_;
  const int rank_;
  CudaBackend& backend_;
  const Nccl& nccl_;
  ncclComm_t comm_ = nullptr;
  bool rehearsing_ = false;
  Stream lane_stream_;
  std::vector<Event> ready_;
  std::vector<Event> done_;
  std::unique_ptr<Buffer> reduced_;  // this rank's sums of one operation
  std::unique_ptr<DeviceBuffer> signals_;
  PeerGroup alone_{.rank = 0, .size = 1};
};

constexpr std::size_t kCountersPerRank = 8;  // a cache line

class NcclCommunicators final : public CommunicatorGroup {
 public:
  explicit NcclCommunicators(std::span<const int> devices)
      : devices_(devices.begin(), devices.end()),
        meeting_(static_cast<int>(devices.size())),
        progress_(devices.size() * kCountersPerRank * sizeof(std::uint64_t), "progress counters") {
    const Nccl& nccl = Nccl::get();
    int version = 0;
    nccl.check(nccl.get_version(&version), "tell its version");
    name_ = "NCCL " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
            "." + std::to_string(version % 100);
    nccl.check(nccl.get_unique_id(&id_), "make an id");
    std::ranges::fill(progress_.as<std::uint64_t>(0, devices_.size() * kCountersPerRank), 0);
  }

  int size() const override { return meeting_.size(); }
  std::string_view transport() const override { return name_; }
  bool gathers() const override { return false; }

  std::unique_ptr<Communicator> join(int rank, Backend& backend, const BatchLimits&, int) override {
    auto& gpu = dynamic_cast<CudaBackend&>(backend);
    CHECK(gpu.device() == devices_[static_cast<std::size_t>(rank)]);
    cuda_check(cudaSetDevice(gpu.device()));
    meeting_.meet();
    return std::make_unique<NcclCommunicator>(meeting_, rank, gpu, id_, counter(rank));
  }

  void abort() override { meeting_.abort(); }
  std::uint64_t progress(int rank) const override { return std::atomic_ref(*counter(rank)).load(); }

 private:
  std::uint64_t* counter(int rank) const {
    const std::size_t first = static_cast<std::size_t>(rank) * kCountersPerRank;
    return progress_.as<std::uint64_t>(first * sizeof(std::uint64_t), 1).data();
  }

  std::vector<int> devices_;
  HostMeeting meeting_;
  PinnedBuffer progress_;
  std::string name_;
  ncclUniqueId id_;
};

}  // namespace

std::unique_ptr<CommunicatorGroup> make_nccl_communicators(std::span<const int> devices) {
  return std::make_unique<NcclCommunicators>(devices);
}

}  // namespace tessera::kernels::cuda
