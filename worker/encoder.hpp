#pragma once

#include "common/model/model_config.hpp"
#include "kernels/backend.hpp"
#include "worker/weights.hpp"
#include "worker/workspace.hpp"

namespace tessera {

// The graph of the Qwen3 dense decoder used as an encoder, written once over Backend: pre-norm,
// RMSNorm on each q and k head before half-rotation RoPE, grouped-query causal attention, SwiGLU,
// final RMSNorm, last token, L2 norm (as transformers' Qwen3Model computes it, read for reference
// in modeling_qwen3.py). Belongs to the thread that owns the backend.
class Encoder {
 public:
  Encoder(kernels::Backend& backend, const ModelConfig& config, EncoderWeights weights,
          Workspace workspace);

  // Queues a whole pass; the backend's `wait` on the slot ends it. Allocates nothing on the device.
  void forward(kernels::BatchSlot& slot, const kernels::PackedBatchView& batch);

 private:
  void layer(const LayerWeights& weights, kernels::BatchSlot& slot, std::int64_t tokens);
  // Only k and v need all tokens here: nothing after the last layer looks at the others.
  void last_layer(const LayerWeights& weights, kernels::BatchSlot& slot, std::int64_t tokens,
                  std::int64_t sequences);
  void feed_forward(const LayerWeights& weights, kernels::Buffer& x, kernels::Buffer& normed,
                    std::int64_t rows);
  kernels::Backend::QkNormRope qk_options(const LayerWeights& weights) const;

  kernels::Backend& backend_;
  const ModelConfig config_;
  const kernels::AttentionShape shape_;
  const float eps_;
  EncoderWeights weights_;
  Workspace workspace_;
};

}  // namespace tessera
