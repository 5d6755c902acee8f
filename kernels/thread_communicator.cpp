// The communicator over threads that share host memory: the readable definition of the operations,
// and what the sharding is tested with where there is no GPU.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "common/check.hpp"
#include "kernels/communicator.hpp"
#include "kernels/host_meeting.hpp"

namespace tessera::kernels {
namespace {

class SharedBuffer final : public Buffer {
 public:
  SharedBuffer(std::unique_ptr<Buffer> own, std::vector<void*> of)
      : own_(std::move(own)), of_(std::move(of)) {}
  std::size_t bytes() const override { return own_->bytes(); }
  void* data() override { return own_->data(); }
  std::byte* of(int rank) const {
    return static_cast<std::byte*>(of_[static_cast<std::size_t>(rank)]);
  }

 private:
  std::unique_ptr<Buffer> own_;
  std::vector<void*> of_;
};

const SharedBuffer& shared(Buffer* buffer) { return dynamic_cast<const SharedBuffer&>(*buffer); }

float load(const std::byte* data, std::int64_t index, DType type) {
  const std::byte* at = data + static_cast<std::size_t>(index) * size_of(type);
  if (type == DType::kFloat32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// To nearest, ties to even; NaN stays NaN.
void store(std::byte* data, std::int64_t index, DType type, float value) {
  std::byte* at = data + static_cast<std::size_t>(index) * size_of(type);
  if (type == DType::kFloat32) {
    std::memcpy(at, &value, sizeof value);
    return;
  }
  const auto word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded =
      std::isnan(value) ? word | 0x400000U : word + 0x7FFFU + ((word >> 16) & 1U);
  const auto bits = static_cast<std::uint16_t>(rounded >> 16);
  std::memcpy(at, &bits, sizeof bits);
}

HostQueue& queue_of(Backend& backend) {
  auto* queue = dynamic_cast<HostQueue*>(&backend);
  if (queue == nullptr) {
    throw FatalError(backend.name() + " is no backend of the host: its ranks need peer memory");
  }
  return *queue;
}

struct State {
  explicit State(int size) : meeting(size), progress(static_cast<std::size_t>(size)) {}
  HostMeeting meeting;
  std::vector<std::atomic<std::uint64_t>> progress;  // of each rank
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(State& state, int rank, Backend& backend, int slots)
      : state_(state),
        rank_(rank),
        backend_(backend),
        queue_(queue_of(backend)),
        rows_(static_cast<std::size_t>(slots)) {}

  int rank() const override { return rank_; }
  int size() const override { return state_.meeting.size(); }

  std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view what) override {
    std::unique_ptr<Buffer> own = backend_.allocate(bytes, what);
    std::vector<void*> of = state_.meeting.exchange(rank_, own->data());
    return std::make_unique<SharedBuffer>(std::move(own), std::move(of));
  }

  void reduce_add(const ReduceAdd& op, int) override {
    queue_.host_task([this, op] {
      meet();
      const std::int64_t share = (op.rows + size() - 1) / size();
      const std::int64_t end = std::min(op.rows, share * (rank_ + 1));
      for (std::int64_t r = share * rank_; r < end; ++r) reduce_row(op, r);
      meet();
    });
  }
  void wait(int) override {}

  void stage_rows(int slot, std::span<const std::int32_t> kv_rows) override {
    rows_[static_cast<std::size_t>(slot)].assign(kv_rows.begin(), kv_rows.end());
  }

  void gather_rows(const GatherRows& op) override {
    queue_.host_task([this, op] {
      const std::size_t element = size_of(backend_.activation_type());
      const std::size_t bytes = static_cast<std::size_t>(op.width) * element;
      const auto* from = static_cast<const std::byte*>(op.source->data()) +
                         static_cast<std::size_t>(op.source_column) * element;
      for (const std::int32_t row : rows_[static_cast<std::size_t>(op.slot)]) {
        const std::size_t at = static_cast<std::size_t>(row < 0 ? -1 - row : row) * bytes;
        for (int rank = 0; rank < size(); ++rank) {
          if (row >= 0 || rank == rank_) {
            std::memcpy(shared(op.gathered).of(rank) + at, from, bytes);
          }
        }
        from += static_cast<std::size_t>(op.source_width) * element;
      }
      meet();
    });
  }

 private:
  void reduce_row(const ReduceAdd& op, std::int64_t r) const {
    const DType activation = backend_.activation_type(), residual = backend_.residual_type();
    const std::int64_t first = (op.first_row + r) * op.hidden;
    for (std::int64_t i = first; i < first + op.hidden; ++i) {
      float sum = load(static_cast<const std::byte*>(op.x->data()), i, residual);
      for (int rank = 0; rank < size(); ++rank) {
        sum += load(shared(op.partial).of(rank), i, activation);
      }
      for (int rank = 0; rank < size(); ++rank) store(shared(op.x).of(rank), i, residual, sum);
    }
  }

  void meet() {
    ++state_.progress[static_cast<std::size_t>(rank_)];
    state_.meeting.meet();
  }

  State& state_;
  const int rank_;
  Backend& backend_;
  HostQueue& queue_;                             // The same object.
  std::vector<std::vector<std::int32_t>> rows_;  // of each slot
};

class ThreadGroup final : public CommunicatorGroup {
 public:
  explicit ThreadGroup(int size) : state_(size) {}
  int size() const override { return state_.meeting.size(); }
  std::string_view transport() const override { return "threads"; }

  std::unique_ptr<Communicator> join(int rank, Backend& backend, const BatchLimits&,
                                     int slots) override {
    state_.meeting.meet();
    return std::make_unique<ThreadCommunicator>(state_, rank, backend, slots);
  }
  void abort() override { state_.meeting.abort(); }
  std::uint64_t progress(int rank) const override {
    return state_.progress[static_cast<std::size_t>(rank)];
  }

 private:
  State state_;
};

}  // namespace

std::unique_ptr<CommunicatorGroup> make_thread_communicators(int size) {
  return std::make_unique<ThreadGroup>(size);
}

}  // namespace tessera::kernels
