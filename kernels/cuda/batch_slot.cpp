#include "kernels/cuda/batch_slot.hpp"

#include <algorithm>
#include <numeric>

#include "common/check.hpp"
#include "kernels/cuda/cuda_check.hpp"

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
  cu_seqlens = take(bytes, index_bytes(size.sequences + 1));
  last_rows = take(bytes, index_bytes(size.sequences));
  last_positions = take(bytes, index_bytes(size.sequences));
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

std::size_t CudaSlot::device_bytes(const BatchLimits& limits, const AttentionPlan& plan,
                                   std::int64_t hidden_size) {
  return StagedLayout(largest(limits), plan).bytes +
         vector_bytes(limits.max_sequences, hidden_size) +
         static_cast<std::size_t>(limits.max_sequences);
}

std::size_t CudaSlot::host_bytes(const BatchLimits& limits, const AttentionPlan& plan,
                                 std::int64_t hidden_size) {
  return device_bytes(limits, plan, hidden_size);
}

void CudaSlot::stage(const PackedBatchView& batch, const BatchSize& size) {
  batch_ = {.tokens = batch.total_tokens(), .sequences = batch.num_sequences()};
  size_ = size;
  layout_ = StagedLayout(size, plan_);
  CHECK(size.tokens >= batch_.tokens && size.sequences >= batch_.sequences);
  CHECK(size.tokens == batch_.tokens || size.sequences > batch_.sequences);
  CHECK(layout_.bytes <= host_in_.bytes());

  const auto ids =
      host_in_.as<std::int32_t>(layout_.input_ids, static_cast<std::size_t>(size.tokens));
  const auto rest = std::ranges::copy(batch.input_ids, ids.begin()).out;
  std::fill(rest, ids.end(), 0);
  stage_sequences(batch.cu_seqlens);
}

void CudaSlot::stage_sequences(std::span<const std::int32_t> cu_seqlens) {
  const auto sequences = static_cast<std::size_t>(size_.sequences);
  const auto tokens = static_cast<std::size_t>(size_.tokens);
  const auto ends = host_in_.as<std::int32_t>(layout_.cu_seqlens, sequences + 1);
  const auto rest = std::ranges::copy(cu_seqlens, ends.begin()).out;
  std::fill(rest, ends.end(), static_cast<std::int32_t>(tokens));

  const auto positions = host_in_.as<std::int32_t>(layout_.positions, tokens);
  const auto last_rows = host_in_.as<std::int32_t>(layout_.last_rows, sequences);
  const auto last_positions = host_in_.as<std::int32_t>(layout_.last_positions, sequences);
  for (std::size_t i = 0; i < sequences; ++i) {
    const auto first = static_cast<std::size_t>(ends[i]);
    const auto length = static_cast<std::size_t>(ends[i + 1] - ends[i]);
    const auto own = positions.subspan(first, length);
    std::iota(own.begin(), own.end(), 0);
    // An empty sequence points at a row that exists; nobody reads what comes of it.
    last_rows[i] = std::max(ends[i + 1] - 1, 0);
    last_positions[i] = std::max(ends[i + 1] - ends[i] - 1, 0);
  }
  const std::size_t tile_bytes = attention_tiles_bytes(plan_, size_.tokens, size_.sequences);
  tile_counts_ =
      build_attention_tiles(plan_, ends, host_in_.as<std::byte>(layout_.tiles, tile_bytes));
  staged_bytes_ = layout_.tiles + attention_tiles_bytes(tile_counts_);
}

void CudaSlot::copy_in(cudaStream_t stream) {
  cuda_check(cudaMemcpyAsync(device_in_.data(), host_in_.data(), staged_bytes_,
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
