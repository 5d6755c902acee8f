#include "kernels/cpu/batch.hpp"

#include <algorithm>
#include <utility>

#include "common/check.hpp"

namespace tessera::kernels::cpu {
namespace {

constexpr std::int64_t kSharedPositions = 256;

// What a token costs per key it sees, its own matrix products being 1: float operations of scores
// and sums, taken as twice as slow as those of the products, against a layer's products.
double square_cost(const EncoderShape& shape) {
  const AttentionShape& heads = shape.attention;
  const std::int64_t linear =
      2 * shape.hidden_size * (heads.qkv_width() + heads.q_width() + 3 * shape.intermediate_size);
  return 2 * 4 * static_cast<double>(heads.q_width()) / static_cast<double>(linear);
}

}  // namespace

CpuBatchSlot::CpuBatchSlot(const BatchLimits& limits, const EncoderShape& shape)
    : limits_(limits), shape_(shape) {
  ids_.reserve(static_cast<std::size_t>(limits.max_tokens));
  positions_.reserve(static_cast<std::size_t>(limits.max_tokens));
  cu_seqlens_.reserve(static_cast<std::size_t>(limits.max_sequences) + 1);
  finite_.resize(static_cast<std::size_t>(limits.max_sequences));
  vectors_ = AlignedBytes(static_cast<std::size_t>(limits.max_sequences * shape.hidden_size) *
                          sizeof(float));
}

std::size_t CpuBatchSlot::bytes(const BatchLimits& limits, const EncoderShape& shape) {
  // ids and positions per token; a vector, a flag and an offset per sequence.
  return static_cast<std::size_t>(limits.max_tokens * 8 +
                                  limits.max_sequences * (shape.hidden_size * 4 + 5));
}

void CpuBatchSlot::begin(const PackedBatchView& batch, int members) {
  CHECK(batch.total_tokens() <= limits_.max_tokens);
  CHECK(batch.num_sequences() <= limits_.max_sequences);
  ids_.assign(batch.input_ids.begin(), batch.input_ids.end());
  cu_seqlens_.assign(batch.cu_seqlens.begin(), batch.cu_seqlens.end());
  positions_.resize(ids_.size());
  for (std::int64_t i = 0; i < num_sequences(); ++i) {
    CHECK(seqlen(i) > 0 && seqlen(i) <= limits_.max_seqlen);
    for (std::int64_t p = 0; p < seqlen(i); ++p) {
      positions_[static_cast<std::size_t>(first_token(i) + p)] = static_cast<std::int32_t>(p);
    }
  }
  partition_ =
      partition_batch(cu_seqlens_, {.members = members, .square_cost = square_cost(shape_)});
  list_shared_tasks();
  counters_used_ = 0;
  recorded_.clear();
  pieces_.clear();
}

const Team::Job* CpuBatchSlot::take_piece() {
  return &pieces_.emplace_back([operations = std::exchange(recorded_, {})](int member) {
    for (const Team::Job& operation : operations) {
      operation(member);
    }
  });
}

void CpuBatchSlot::list_shared_tasks() {
  shared_tasks_.clear();
  for (const std::int64_t sequence : partition_.cut_sequences) {
    for (std::int64_t first = 0; first < seqlen(sequence); first += kSharedPositions) {
      for (std::int64_t head = 0; head < shape_.attention.num_kv_heads; ++head) {
        shared_tasks_.push_back({.sequence = sequence,
                                 .kv_head = head,
                                 .first = first,
                                 .last = std::min(first + kSharedPositions, seqlen(sequence))});
      }
    }
  }
  // The last positions see the most keys; taken first, they leave small tasks to even out the end.
  std::ranges::stable_sort(shared_tasks_, std::greater{}, &SharedTask::first);
}

std::atomic<std::size_t>& CpuBatchSlot::new_counter() {
  if (counters_used_ == counters_.size()) {
    counters_.push_back(std::make_unique<std::atomic<std::size_t>>(0));
  }
  std::atomic<std::size_t>& counter = *counters_[counters_used_++];
  counter = 0;
  return counter;
}

float* CpuBatchSlot::vector(std::int64_t sequence) const {
  return vectors_.as<float>() + sequence * shape_.hidden_size;
}

std::span<const float> CpuBatchSlot::vectors() const {
  return {vectors_.as<float>(), static_cast<std::size_t>(num_sequences() * shape_.hidden_size)};
}

std::span<const std::uint8_t> CpuBatchSlot::finite() const {
  return std::span(finite_).first(static_cast<std::size_t>(num_sequences()));
}

}  // namespace tessera::kernels::cpu
