#include "kernels/cuda/backend/batch_slot.hpp"

#include <algorithm>
#include <numeric>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t take(std::size_t& end, std::size_t bytes) {
  const std::size_t at = end;
  end += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return at;
}

std::size_t index_bytes(std::int64_t count) {
  return static_cast<std::size_t>(count) * sizeof(std::int32_t);
}

std::size_t vector_bytes(std::int64_t sequences, std::int64_t hidden_size) {
  return static_cast<std::size_t>(sequences * hidden_size) * sizeof(float);
}

BatchSize largest(const BatchLimits& limits) {
  return {.tokens = limits.max_tokens, .sequences = limits.max_sequences};
}

}  // namespace

StagedLayout::StagedLayout(const BatchSize& size, const AttentionPlan& plan) {
  input_ids = take(bytes, index_bytes(size.tokens));
  positions = take(bytes, index_bytes(size.tokens));
  last_rows = take(bytes, index_bytes(size.sequences));
  last_positions = take(bytes, index_bytes(size.sequences));
  first_keys = take(bytes, index_bytes(size.sequences));
  num_keys = take(bytes, index_bytes(size.sequences));
  tiles = take(bytes, attention_tiles_bytes(plan, size.tokens, size.sequences));
}

CudaSlot::CudaSlot(const BatchLimits& limits, const AttentionPlan& plan, std::int64_t hidden_size)
    : plan_(plan),
      hidden_size_(hidden_size),
      finite_offset_(vector_bytes(limits.max_sequences, hidden_size)),
      host_in_(StagedLayout(largest(limits), plan).bytes, "a batch's input"),
      device_in_(host_in_.bytes(), "a batch's input"),
      device_out_(finite_offset_ + static_cast<std::size_t>(limits.max_sequences),
                  "a batch's vectors"),
      host_vectors_(finite_offset_, "a batch's vectors"),
      host_finite_(static_cast<std::size_t>(limits.max_sequences), "a batch's flags") {}

std::size_t CudaSlot::staged_bytes(const BatchLimits& limits, const AttentionPlan& plan) {
  return StagedLayout(largest(limits), plan).bytes;
}

std::size_t CudaSlot::result_bytes(const BatchLimits& limits, std::int64_t hidden_size) {
  return vector_bytes(limits.max_sequences, hidden_size) +
         static_cast<std::size_t>(limits.max_sequences);
}

void CudaSlot::stage(const PackedBatchView& batch, const std::optional<BatchSize>& bucket) {
  cu_seqlens_.assign(batch.cu_seqlens.begin(), batch.cu_seqlens.end());
  segments_.assign(batch.segments.begin(), batch.segments.end());
  batch_ = {
      .tokens = batch.total_tokens(), .sequences = batch.num_sequences(), .kind = batch.kind()};
  if (!segments_.empty()) {
    CHECK(segments_.size() + 1 == cu_seqlens_.size());
    batch_.sequences = std::ranges::count_if(segments_, &Segment::ends);
  }
  size_ = bucket.value_or(batch_);
  if (bucket) {
    CHECK(size_.tokens >= batch_.tokens && size_.sequences > batch.num_sequences());
    cu_seqlens_.resize(static_cast<std::size_t>(size_.sequences) + 1,
                       static_cast<std::int32_t>(size_.tokens));
    if (!segments_.empty()) {
      segments_.resize(static_cast<std::size_t>(size_.sequences), Segment{.ends = false});
    }
  }
  layout_ = StagedLayout(
      {.tokens = size_.tokens, .sequences = static_cast<std::int64_t>(cu_seqlens_.size()) - 1},
      plan_);
  CHECK(layout_.bytes <= host_in_.bytes());
  stage_tokens(batch);
  stage_vectors();
  stage_tiles();
}

void CudaSlot::stage_tokens(const PackedBatchView& batch) {
  const auto tokens = static_cast<std::size_t>(size_.tokens);
  const auto ids = host_in_.as<std::int32_t>(layout_.input_ids, tokens);
  const auto rest = std::ranges::copy(batch.input_ids, ids.begin()).out;
  std::fill(rest, ids.end(), 0);
  const auto positions = host_in_.as<std::int32_t>(layout_.positions, tokens);
  for (std::size_t i = 0; i + 1 < cu_seqlens_.size(); ++i) {
    const auto own =
        positions.subspan(static_cast<std::size_t>(cu_seqlens_[i]),
                          static_cast<std::size_t>(cu_seqlens_[i + 1] - cu_seqlens_[i]));
    std::iota(own.begin(), own.end(), segments_.empty() ? 0 : segments_[i].position);
  }
}

void CudaSlot::stage_vectors() {
  const auto count = static_cast<std::size_t>(size_.sequences);
  const auto last_rows = host_in_.as<std::int32_t>(layout_.last_rows, count);
  const auto last_positions = host_in_.as<std::int32_t>(layout_.last_positions, count);
  const auto first_keys = host_in_.as<std::int32_t>(layout_.first_keys, count);
  const auto num_keys = host_in_.as<std::int32_t>(layout_.num_keys, count);
  std::size_t vector = 0;
  for (std::size_t i = 0; i + 1 < cu_seqlens_.size(); ++i) {
    const Segment segment = segments_.empty() ? Segment{.first_kv = cu_seqlens_[i]} : segments_[i];
    if (!segment.ends) {
      continue;
    }
    // A bucket's empty sequence points at a row that exists; nobody reads what comes of it.
    last_rows[vector] = std::max(cu_seqlens_[i + 1] - 1, 0);
    num_keys[vector] = segment.position + cu_seqlens_[i + 1] - cu_seqlens_[i];
    last_positions[vector] = std::max(num_keys[vector] - 1, 0);
    first_keys[vector] = segment.first_kv;
    ++vector;
  }
  CHECK(vector == count || !segments_.empty());
  for (; vector < count; ++vector) {
    last_rows[vector] = last_positions[vector] = first_keys[vector] = num_keys[vector] = 0;
  }
}

void CudaSlot::stage_tiles() {
  const auto runs = static_cast<std::int64_t>(cu_seqlens_.size()) - 1;
  const auto list =
      host_in_.as<std::byte>(layout_.tiles, attention_tiles_bytes(plan_, size_.tokens, runs));
  tile_counts_ = build_attention_tiles(plan_, cu_seqlens_, segments_, list);
  staged_end_ = layout_.tiles + attention_tiles_bytes(tile_counts_);
}

void CudaSlot::copy_in(cudaStream_t stream) {
  cuda_check(cudaMemcpyAsync(device_in_.data(), host_in_.data(), staged_end_,
                             cudaMemcpyHostToDevice, stream));
}

void CudaSlot::copy_out(cudaStream_t stream) {
  cuda_check(cudaMemcpyAsync(host_vectors_.data(), device_vectors(),
                             vector_bytes(batch_.sequences, hidden_size_), cudaMemcpyDeviceToHost,
                             stream));
  cuda_check(cudaMemcpyAsync(host_finite_.data(), device_finite(),
                             static_cast<std::size_t>(batch_.sequences), cudaMemcpyDeviceToHost,
                             stream));
}

std::span<const float> CudaSlot::vectors() const {
  return host_vectors_.as<const float>(0,
                                       static_cast<std::size_t>(batch_.sequences * hidden_size_));
}

std::span<const std::uint8_t> CudaSlot::finite() const {
  return host_finite_.as<const std::uint8_t>(0, static_cast<std::size_t>(batch_.sequences));
}

}  // namespace tessera::kernels::cuda
