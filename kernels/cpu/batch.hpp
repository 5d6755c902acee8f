#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/aligned_bytes.hpp"
#include "kernels/cpu/partition.hpp"
#include "kernels/cpu/team.hpp"

namespace tessera::kernels::cpu {

// A piece of a cut sequence's attention that any member may take.
struct SharedTask {
  std::int64_t sequence = 0;
  std::int64_t kv_head = 0;
  std::int64_t first = 0;  // positions [first, last)
  std::int64_t last = 0;
};

// A batch in flight: its input, how it is shared out, the operations that every member runs over
// its share, and its output.
class CpuBatchSlot final : public BatchSlot {
 public:
  CpuBatchSlot(const BatchLimits& limits, const EncoderShape& shape);

  static std::size_t bytes(const BatchLimits& limits, const EncoderShape& shape);

  std::int64_t total_tokens() const override { return static_cast<std::int64_t>(ids_.size()); }
  std::int64_t num_sequences() const override {
    return static_cast<std::int64_t>(cu_seqlens_.size()) - 1;
  }

  void begin(const PackedBatchView& batch, int members);
  void record(Team::Job operation) { recorded_.push_back(std::move(operation)); }
  // What was recorded since the last call, as a job that holds until the next `begin`.
  const Team::Job* take_piece();
  std::uint64_t ticket = 0;  // of the last piece

  std::int32_t id(std::int64_t token) const { return ids_[static_cast<std::size_t>(token)]; }
  std::int64_t position(std::int64_t token) const {
    return positions_[static_cast<std::size_t>(token)];
  }
  std::int64_t first_token(std::int64_t sequence) const {
    return cu_seqlens_[static_cast<std::size_t>(sequence)];
  }
  std::int64_t seqlen(std::int64_t sequence) const {
    return first_token(sequence + 1) - first_token(sequence);
  }
  const Share& share(int member) const {
    return partition_.shares[static_cast<std::size_t>(member)];
  }
  bool has_cut() const { return !partition_.cut_sequences.empty(); }
  std::span<const SharedTask> shared_tasks() const { return shared_tasks_; }
  // A fresh counter, at 0, for the members to take shared tasks by; one per attention operation.
  std::atomic<std::size_t>& new_counter();

  float* vector(std::int64_t sequence) const;
  std::uint8_t& finite_flag(std::int64_t sequence) {
    return finite_[static_cast<std::size_t>(sequence)];
  }
  std::span<const float> vectors() const;
  std::span<const std::uint8_t> finite() const;

 private:
  void list_shared_tasks();

  const BatchLimits limits_;
  const EncoderShape shape_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> positions_;
  std::vector<std::int32_t> cu_seqlens_ = {0};
  Partition partition_;
  std::vector<SharedTask> shared_tasks_;
  std::vector<std::unique_ptr<std::atomic<std::size_t>>> counters_;
  std::size_t counters_used_ = 0;
  std::vector<Team::Job> recorded_;  // since the last piece
  std::deque<Team::Job> pieces_;     // each its operations, one after the other
  AlignedBytes vectors_;
  std::vector<std::uint8_t> finite_;
};

}  // namespace tessera::kernels::cpu
