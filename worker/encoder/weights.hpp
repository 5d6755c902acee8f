#pragma once

#include <memory>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "common/model/weights/safetensors.hpp"
#include "kernels/backend.hpp"
#include "worker/split/shard.hpp"

namespace tessera::worker {

struct LayerWeights {
  std::unique_ptr<kernels::LinearWeight> qkv;      // [q | k | v, hidden], with the input norm
  std::unique_ptr<kernels::Buffer> q_norm;         // [head_dim]
  std::unique_ptr<kernels::Buffer> k_norm;         // [head_dim]
  std::unique_ptr<kernels::LinearWeight> o;        // [hidden, q_width]
  std::unique_ptr<kernels::LinearWeight> gate_up;  // [gate | up, hidden], with the second norm
  std::unique_ptr<kernels::LinearWeight> down;     // [hidden, intermediate]
};

struct EncoderWeights {
  std::unique_ptr<kernels::Buffer> embed_tokens;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<kernels::Buffer> norm;  // [hidden]
};

// What one rank computes. Throws FatalError when the model does not divide by the group's size.
kernels::EncoderShape encoder_shape(const ModelConfig& config, RankShare share = {});

// Loads one rank's share onto its backend. Throws FatalError, naming the tensor, where
// find_graph_weights refuses one. `folder` may be dropped after.
EncoderWeights load_weights(kernels::Backend& backend, const ModelConfig& config,
                            const SafetensorsFolder& folder, RankShare share = {});

}  // namespace tessera::worker
