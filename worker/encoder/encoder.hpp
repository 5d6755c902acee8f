#pragma once

#include <memory>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "kernels/backend.hpp"
#include "kernels/communicator.hpp"
#include "worker/encoder/pass_steps.hpp"
#include "worker/encoder/weights.hpp"
#include "worker/encoder/workspace.hpp"

namespace tessera::worker {

// How the encoder's device stands to others, and what follows it.
struct EncoderPlace {
  GroupSplit split = GroupSplit::kNone;
  RankShare share;                                // of the weights, for kTensor
  kernels::Communicator* communicator = nullptr;  // unless kNone; outlives the encoder
  // kOwn where modules follow that need the pooled vectors as they are.
  kernels::Backend::Length length = kernels::Backend::Length::kUnit;
};

// The graph of the Qwen3 dense decoder used as an encoder, written once over Backend: pre-norm,
// RMSNorm on each q and k head before half-rotation RoPE, grouped-query causal attention, SwiGLU,
// final RMSNorm, last token, L2 norm (as transformers' Qwen3Model computes it, read for reference
// in modeling_qwen3.py). Belongs to the thread that owns the backend.
//
// Under kTensor every rank has the whole residual stream and its heads and features of what lies
// between: after o and after down the ranks' partial sums are added to it in one collective
// operation. All calls are then collective, with the same batch on every rank.
class Encoder {
 public:
  Encoder(kernels::Backend& backend, const ModelConfig& config, EncoderWeights weights,
          Workspace workspace, const EncoderPlace& place = {});

  // A batch, or one of its two halves that take turns: while the ranks exchange one half's sums
  // they compute the other half.
  struct Input {
    kernels::BatchSlot* slot = nullptr;
    kernels::PackedBatchView batch;
  };
  // Which rows of the workspace a pass has.
  enum class Region : std::uint8_t {
    kBatch,    // those of a full batch
    kExpress,  // those behind them, for at most kExpressTokensMax tokens
  };
  class Pass;
  // The backend's `wait` on the slot ends a pass. Nothing is queued before its first step, and the
  // batch must outlive it. Allocates nothing on the device.
  std::unique_ptr<Pass> start(kernels::BatchSlot& slot, const kernels::PackedBatchView& batch,
                              Region region = Region::kBatch);
  // kTensor: one pass over both halves, which together stay within the limits of one batch.
  std::unique_ptr<Pass> start_halves(const Input& first, const Input& second);
  // kTokens, collective where the batch was cut: this rank's part. Where it has no tokens the slot
  // has nothing to wait for. `staged_slot` names the rows given to Communicator::stage_rows.
  std::unique_ptr<Pass> start_part(kernels::BatchSlot& slot, const kernels::PackedBatchView& part,
                                   int staged_slot, Region region = Region::kBatch);
  // Runs each operation that the batch needs, but on the first and the last layer only, so that
  // the device has loaded their code; its vectors mean nothing. With the communicator rehearsing.
  void rehearse(kernels::BatchSlot& slot, const kernels::PackedBatchView& batch);

 private:
  struct Strand;

  Strand strand(const Input& input, Region region, int staged_slot = 0) const;
  bool run_at_once(Strand& strand);
  void project(Strand& strand, const LayerWeights& weights);
  void attend(Strand& strand, const LayerWeights& weights);
  // Only k and v need all tokens here: nothing after the last layer looks at the others.
  void attend_last(Strand& strand, const LayerWeights& weights);
  void gate(Strand& strand, const LayerWeights& weights);
  void down(Strand& strand, const LayerWeights& weights);
  void gather_nothing(Strand& strand, PassSteps::Kind kind);
  void finish(Strand& strand, const LayerWeights& weights);

  enum class Rows : std::uint8_t { kTokens, kLast };
  void add(Strand& strand, kernels::Buffer& in, kernels::LinearWeight& weight, Rows rows);
  void join(const Strand& strand);
  void advance_other(const Strand& strand);
  kernels::Buffer& gather(Strand& strand, std::int64_t source_width, std::int64_t column);
  kernels::Backend::QkNormRope qk_options(const LayerWeights& weights,
                                          const kernels::Backend::RowNorm& norm) const;
  std::size_t element_bytes() const;
  std::size_t residual_bytes() const;

  kernels::Backend& backend_;
  const ModelConfig config_;
  const EncoderPlace place_;
  const kernels::EncoderShape shape_;
  const float eps_;
  EncoderWeights weights_;
  std::vector<kernels::Backend::LayerOperands> layer_operands_;  // of all layers but the last
  Workspace workspace_;
};

// One batch on its way through the layers, step by step. Between two steps, behind Backend::cut,
// the pass of another slot may be queued whole, if one of the two has the express rows.
class Encoder::Pass {
 public:
  Pass(Encoder& encoder, std::vector<Strand> strands);
  ~Pass();
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  // All is queued, up to the backend's `end`. A recorded pass is done with its first step.
  bool done() const { return next_ >= steps_.count(); }
  // Queues the next `count` steps, or those that there still are.
  void run(int count);
  void run_all() { run(steps_.count()); }

 private:
  friend class Encoder;
  void start();
  void run(const PassSteps::Step& step);

  Encoder& encoder_;
  const PassSteps steps_;
  std::vector<Strand> strands_;
  int next_ = 0;
};

}  // namespace tessera::worker
