#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "kernels/communicator.hpp"
#include "worker/encoder/encoder.hpp"
#include "worker/engine/engine_plan.hpp"
#include "worker/split/token_split.hpp"

namespace tessera::worker {

// A batch in flight as all ranks of a group see it: written by the engine's thread while no rank
// works on it, read by the ranks, which write their vectors into it.
struct GroupBatch {
  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> cu_seqlens;
  TokenSplit tokens;                            // kTokens
  std::vector<std::int32_t> second_cu_seqlens;  // kTensor: of the second half; none: in one piece
  std::vector<float> vectors;                   // [num_sequences, hidden]
  std::vector<std::uint8_t> finite;             // [num_sequences]

  kernels::PackedBatchView view() const { return {input_ids, cu_seqlens}; }
  // kTensor: sequences and tokens of the first half, or of all.
  kernels::PackedBatchView first_half() const;
  kernels::PackedBatchView second_half() const;
};

// One rank: a device, its weights, and its part of every batch. Belongs to the rank's thread.
class RankEngine {
 public:
  struct Options {
    RankPlan plan;
    int rank = 0;
    kernels::BatchLimits limits;  // of the engine
    kernels::Backend::Length length = kernels::Backend::Length::kUnit;
  };
  // Collective: loads this rank's weights and takes its memory.
  RankEngine(std::unique_ptr<kernels::Backend> backend, kernels::CommunicatorGroup& group,
             const ModelConfig& config, const SafetensorsFolder& folder, const Options& options);

  // Collective, once and before any batch: records what the device records, and ends the start.
  void prepare();
  // The most tokens of a part that the device has a recording for; after prepare().
  std::int64_t recorded_tokens_max() const { return recorded_tokens_max_; }
  // Queues a piece of this rank's part; returns at once.
  void launch(const PassPiece& piece, const GroupBatch& batch);
  // Blocks until the oldest piece that was launched and not waited for has run.
  void wait_oldest();
  // Blocks until the part is done and puts its vectors where they belong.
  void collect(int slot, GroupBatch& batch);

 private:
  void rehearse();
  void rehearse(std::int64_t tokens, std::int64_t sequences);
  void pass(int slot, const kernels::RecordedSize& size);
  std::unique_ptr<Encoder::Pass> start_tensor(int slot, const GroupBatch& batch);
  // None where this rank has no part in the batch.
  std::unique_ptr<Encoder::Pass> start_tokens(int slot, const GroupBatch& batch);
  void copy_out(kernels::BatchSlot& slot, std::int64_t from, std::int64_t to,
                GroupBatch& batch) const;

  const Options options_;
  const std::int64_t hidden_size_;
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<kernels::Communicator> communicator_;
  std::unique_ptr<Encoder> encoder_;
  // Two halves each under kTensor.
  std::array<std::array<std::unique_ptr<kernels::BatchSlot>, 2>, kEngineSlots> slots_;
  std::array<bool, kEngineSlots> busy_ = {};  // this rank has tokens of the slot's batch
  std::array<std::unique_ptr<Encoder::Pass>, kEngineSlots> passes_;
  std::deque<std::optional<std::uint64_t>> cuts_;  // of pieces launched and not waited for
  std::int64_t recorded_tokens_max_ = 0;
};

}  // namespace tessera::worker
