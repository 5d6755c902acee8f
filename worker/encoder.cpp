#include "worker/encoder.hpp"

#include <utility>

namespace tessera {

using kernels::BatchSlot;
using kernels::Buffer;

Encoder::Encoder(kernels::Backend& backend, const ModelConfig& config, EncoderWeights weights,
                 Workspace workspace)
    : backend_(backend),
      config_(config),
      shape_(encoder_shape(config).attention),
      eps_(static_cast<float>(config.rms_norm_eps)),
      weights_(std::move(weights)),
      workspace_(std::move(workspace)) {
  CHECK(weights_.layers.size() == static_cast<std::size_t>(config.num_hidden_layers));
}

void Encoder::forward(BatchSlot& slot, const kernels::PackedBatchView& batch) {
  Workspace& w = workspace_;
  const std::int64_t tokens = batch.total_tokens(), sequences = batch.num_sequences();
  backend_.begin(slot, batch);
  backend_.embed(*w.x, *weights_.embed_tokens, slot, config_.hidden_size);
  for (std::size_t i = 0; i + 1 < weights_.layers.size(); ++i) {
    layer(weights_.layers[i], slot, tokens);
  }
  last_layer(weights_.layers.back(), slot, tokens, sequences);
  backend_.pool(slot, *w.x_last, *weights_.norm, config_.hidden_size, eps_);
  backend_.end(slot);
}

void Encoder::layer(const LayerWeights& weights, BatchSlot& slot, std::int64_t tokens) {
  Workspace& w = workspace_;
  backend_.rms_norm(*w.normed, *w.x, *weights.input_norm, tokens, config_.hidden_size, eps_);
  backend_.qkv_projection(*w.qkv, *w.normed, *weights.qkv, slot, shape_, qk_options(weights));
  backend_.attention(*w.attention, *w.qkv, nullptr, slot, shape_);
  backend_.linear_add(*w.x, *w.attention, *weights.o, tokens);
  feed_forward(weights, *w.x, *w.normed, tokens);
}

void Encoder::last_layer(const LayerWeights& weights, BatchSlot& slot, std::int64_t tokens,
                         std::int64_t sequences) {
  Workspace& w = workspace_;
  const auto options = qk_options(weights);
  backend_.rms_norm(*w.normed, *w.x, *weights.input_norm, tokens, config_.hidden_size, eps_);
  backend_.kv_projection(*w.qkv, *w.normed, *weights.qkv, slot, shape_, options);
  backend_.gather_last(*w.x_last, *w.x, slot, config_.hidden_size, backend_.residual_type());
  backend_.gather_last(*w.h_last, *w.normed, slot, config_.hidden_size, backend_.activation_type());
  backend_.last_q_projection(*w.q_last, *w.h_last, *weights.qkv, slot, shape_, options);
  backend_.last_attention(*w.attention, *w.q_last, *w.qkv, slot, shape_);
  backend_.linear_add(*w.x_last, *w.attention, *weights.o, sequences);
  feed_forward(weights, *w.x_last, *w.h_last, sequences);
}

void Encoder::feed_forward(const LayerWeights& weights, Buffer& x, Buffer& normed,
                           std::int64_t rows) {
  Workspace& w = workspace_;
  backend_.rms_norm(normed, x, *weights.post_attention_norm, rows, config_.hidden_size, eps_);
  backend_.swiglu_projection(*w.mlp, normed, *weights.gate_up, rows);
  backend_.linear_add(x, *w.mlp, *weights.down, rows);
}

kernels::Backend::QkNormRope Encoder::qk_options(const LayerWeights& weights) const {
  return {.q_norm = weights.q_norm.get(),
          .k_norm = weights.k_norm.get(),
          .eps = eps_,
          .rope_theta = config_.rope_theta};
}

}  // namespace tessera
