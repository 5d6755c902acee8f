#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/backend.hpp"
#include "worker/engine/engine_plan.hpp"

namespace tessera::worker {

// A batch of the size that a backend wants to record, of one token's id: sequences as long as each
// other, or parts that begin theirs.
class RecordedBatch {
 public:
  explicit RecordedBatch(const kernels::RecordedSize& size)
      : ids_(static_cast<std::size_t>(size.tokens), 1) {
    for (std::int64_t i = 0; i <= size.sequences; ++i) {
      cu_seqlens_.push_back(static_cast<std::int32_t>(size.tokens * i / size.sequences));
    }
    if (size.kind != kernels::BatchKind::kWhole) {
      segments_.assign(static_cast<std::size_t>(size.sequences),
                       {.ends = size.kind == kernels::BatchKind::kParts});
      for (std::size_t i = 0; i < segments_.size(); ++i) segments_[i].first_kv = cu_seqlens_[i];
      kv_rows_.resize(ids_.size());
      std::iota(kv_rows_.begin(), kv_rows_.end(), 0);
    }
  }

  kernels::PackedBatchView view() const { return {ids_, cu_seqlens_, segments_}; }
  // Parts: where each token's keys and values go, as Communicator::stage_rows takes them.
  const std::vector<std::int32_t>& kv_rows() const { return kv_rows_; }

 private:
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> cu_seqlens_;
  std::vector<kernels::Segment> segments_;
  std::vector<std::int32_t> kv_rows_;
};

// Records every size in every slot of the engine; `pass(slot, size)` runs one.
template <typename Pass>
void record_all(kernels::Backend& backend, const std::vector<kernels::RecordedSize>& sizes,
                Pass pass) {
  backend.record(true);
  for (int slot = 0; slot < kEngineSlots; ++slot) {
    for (const kernels::RecordedSize& size : sizes) pass(slot, size);
  }
  backend.record(false);
}

}  // namespace tessera::worker
