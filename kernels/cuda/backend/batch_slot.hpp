#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/attention/attention_tiles.hpp"
#include "kernels/cuda/base/resources.hpp"

namespace tessera::kernels::cuda {

// Tokens and sequences that a launch covers: those of the batch, or those of a recorded graph's
// bucket, which the batch is filled up to.
struct BatchSize {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  BatchKind kind = BatchKind::kWhole;
  auto operator<=>(const BatchSize&) const = default;
};

// Where a batch's staged input lies in the slot's memory, as byte offsets that depend on the size
// alone, so that a graph recorded for a size finds every batch of that size. The tiles come last:
// what is copied to the device ends with the tiles in use.
struct StagedLayout {
  StagedLayout() = default;
  StagedLayout(const BatchSize& size, const AttentionPlan& plan);
  std::size_t input_ids = 0;  // int32 [tokens]
  std::size_t positions = 0;  // int32 [tokens], in the sequence
  // Of each vector, int32 [sequences]: row and position of its last token, first row and number of
  // its keys.
  std::size_t last_rows = 0;
  std::size_t last_positions = 0;
  std::size_t first_keys = 0;
  std::size_t num_keys = 0;
  std::size_t tiles = 0;
  std::size_t bytes = 0;
};

// A batch slot on the GPU: page-locked staging and its device copy for the input, vectors and flags
// in device memory and their page-locked copy for the output, and the graphs recorded for it.
class CudaSlot final : public BatchSlot {
 public:
  CudaSlot(const BatchLimits& limits, const AttentionPlan& plan, std::int64_t hidden_size);

  // Of each the device has one copy and the host another one.
  static std::size_t staged_bytes(const BatchLimits& limits, const AttentionPlan& plan);
  static std::size_t result_bytes(const BatchLimits& limits, std::int64_t hidden_size);

  std::int64_t total_tokens() const override { return batch_.tokens; }
  std::int64_t num_sequences() const override { return batch_.sequences; }

  // Fills the staging memory. With a `bucket` the batch is brought up to that size: the tokens that
  // are missing form one more sequence of token 0, so that every row the launches touch holds
  // finite numbers; further sequences are empty. Among parts of sequences the
  // filler looks at the first gathered keys. Nothing of the slot may be in flight.
  void stage(const PackedBatchView& batch, const std::optional<BatchSize>& bucket);
  void copy_in(cudaStream_t stream);   // staging to device
  void copy_out(cudaStream_t stream);  // vectors and flags to host

  const BatchSize& batch() const { return batch_; }  // tokens and vectors
  const BatchSize& size() const { return size_; }    // the same of the launches
  const AttentionTileCounts& tile_counts() const { return tile_counts_; }
  void set_tile_counts(const AttentionTileCounts& counts) { tile_counts_ = counts; }

  const std::int32_t* input_ids() { return staged<std::int32_t>(layout_.input_ids); }
  const std::int32_t* positions() { return staged<std::int32_t>(layout_.positions); }
  const std::int32_t* last_rows() { return staged<std::int32_t>(layout_.last_rows); }
  const std::int32_t* last_positions() { return staged<std::int32_t>(layout_.last_positions); }
  const std::int32_t* first_keys() { return staged<std::int32_t>(layout_.first_keys); }
  const std::int32_t* num_keys() { return staged<std::int32_t>(layout_.num_keys); }
  void* tiles() { return staged<std::byte>(layout_.tiles); }

  float* device_vectors() { return device_out_.as<float>(); }
  std::uint8_t* device_finite() { return device_out_.as<std::uint8_t>(finite_offset_); }
  std::span<const float> vectors() const;
  std::span<const std::uint8_t> finite() const;

  Event staged_event = make_event();    // the input is on the device
  Event computed_event = make_event();  // the vectors are on the device
  Event done_event = make_event();      // the vectors are on the host
  std::map<BatchSize, GraphExec> graphs;

 private:
  template <typename T>
  T* staged(std::size_t offset) {
    return device_in_.as<T>(offset);
  }
  void stage_tokens(const PackedBatchView& batch);
  void stage_vectors();
  void stage_tiles();

  AttentionPlan plan_;
  std::int64_t hidden_size_;
  std::size_t finite_offset_;
  PinnedBuffer host_in_;
  DeviceBuffer device_in_;
  DeviceBuffer device_out_;
  PinnedBuffer host_vectors_;
  PinnedBuffer host_finite_;
  BatchSize batch_;
  BatchSize size_;
  StagedLayout layout_;
  AttentionTileCounts tile_counts_;
  std::vector<std::int32_t> cu_seqlens_;  // of the launches, as are the segments
  std::vector<Segment> segments_;
  std::size_t staged_end_ = 0;  // of what the batch uses
};

// Of this backend's own slots.
inline CudaSlot& cuda_slot(BatchSlot& slot) { return static_cast<CudaSlot&>(slot); }
inline const CudaSlot& cuda_slot(const BatchSlot& slot) {
  return static_cast<const CudaSlot&>(slot);
}

}  // namespace tessera::kernels::cuda
