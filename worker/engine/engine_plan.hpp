#pragma once

#include <future>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/model/fingerprint.hpp"
#include "common/model/memory_estimate.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/settings/model_config.hpp"
#include "common/model/weights/safetensors.hpp"
#include "kernels/backend.hpp"
#include "worker/encoder/encoder.hpp"
#include "worker/encoder/workspace.hpp"
#include "worker/engine/engine.hpp"
#include "worker/engine/pass_pipeline.hpp"

namespace tessera::worker {

// What every engine settles before it takes memory: limits, shares, and the printed sum.

inline constexpr int kBatchSlots = 2;   // one computes while the other is filled and emptied
inline constexpr int kExpressSlot = 2;  // of a batch that overtakes them
inline constexpr int kEngineSlots = 3;
inline Encoder::Region region_of(int slot) {
  return slot == kExpressSlot ? Encoder::Region::kExpress : Encoder::Region::kBatch;
}

// About how much work is queued on a device at once, in seconds: twice as long a query may wait.
// Shorter pieces cost a device more gaps; the CPU's threads meet at the end of each.
double piece_seconds(const EngineOptions& options);
// How many pieces are queued at once. A CPU's are as long as a step, and its threads wake up soon.
std::size_t pieces_ahead(const EngineOptions& options);
// What a pass over the batch costs; `alone` is the engine's cost model.
PassCost pass_cost(const EngineOptions& options, const kernels::PackedBatchView& batch,
                   const CostModel& alone);

// One device, or one rank of a group.
struct RankPlan {
  GroupSplit split = GroupSplit::kNone;
  int ranks = 1;
  RankShare share(int rank) const {
    return split == GroupSplit::kTensor ? RankShare{rank, ranks} : RankShare{};
  }
};

// "cuda:3" to 3; throws FatalError on anything else.
int cuda_index(const std::string& device);

// The part of a batch within the engine's limits that one rank may get.
kernels::BatchLimits rank_limits(const kernels::BatchLimits& limits, const RankPlan& plan);

// The memory of one device and the page-locked memory of its host as a sum: weights, activations,
// and what the backend adds.
class MemoryPlan {
 public:
  MemoryPlan(const ModelConfig& config, const kernels::Backend& backend,
             const kernels::BatchLimits& limits, const RankPlan& rank = {});

  std::uint64_t device_bytes() const { return tessera::device_bytes(items_); }
  std::string text() const { return format_memory(items_); }
  WorkspaceBytes workspace(const ModelConfig& config) const {
    return workspace_bytes(config, options_);
  }

 private:
  MemoryEstimateOptions options_;
  std::vector<MemoryItem> items_;
};

// The limits asked for, or default ones with the batch (and with it the longest text, where that
// was not asked for) made smaller until a rank's share fits into options.mem_fraction of
// `free_bytes`. Throws FatalError with the sum when nothing does.
kernels::BatchLimits fit_limits(const EngineOptions& options, const ModelConfig& config,
                                const kernels::Backend& backend, std::size_t free_bytes,
                                const RankPlan& rank = {});

// What the encoder makes of the pooled vectors, for the modules behind it.
kernels::Backend::Length pooled_length(const ModelFolder& model);
// All but the hashes and `cost`, and `device` and `group_size` of a group.
EngineInfo describe_engine(const ModelFolder& model, const kernels::Backend& backend,
                           const kernels::BatchLimits& limits);

// Hashes the folder's files on threads of its own, while the weights are loaded from the same
// pages. Folder and weights must outlive it; its end stops the hashing.
class FolderHashing {
 public:
  FolderHashing(const EngineOptions& options, const ModelFolder& folder,
                const SafetensorsFolder& weights);
  FolderHashing(const FolderHashing&) = delete;
  FolderHashing& operator=(const FolderHashing&) = delete;
  ~FolderHashing() { stop_.request_stop(); }

  // To be called when the weights are loaded: waits, and fills in the hashes. Throws FatalError
  // when a file cannot be read or was changed since it was opened.
  void identify(EngineInfo& info, std::string_view numeric_type);

 private:
  const SafetensorsFolder& weights_;
  std::stop_source stop_;
  std::future<Result<ModelHash>> hash_;  // Its end waits for the thread.
};

}  // namespace tessera::worker
