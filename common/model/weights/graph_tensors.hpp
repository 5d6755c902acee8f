#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "common/model/weights/safetensors.hpp"

namespace tessera {

struct GraphTensor {
  std::string name;  // without prefix: "layers.0.self_attn.q_proj.weight"
  std::vector<std::int64_t> shape;
};
// All tensors of the encoder's graph.
std::vector<GraphTensor> graph_tensors(const ModelConfig& config);

// Tensors by their names in the graph. Views point into the folder, which must outlive it; so do
// the names that messages use.
using GraphWeights =
    std::map<std::string, std::pair<std::string_view, const TensorView*>, std::less<>>;

// Gives each tensor of the graph its tensor of the folder, whose name may carry the prefix
// "model.". Refuses, naming the tensor, one that is missing, there twice, of another shape than
// config.json's or of a type other than BF16, F16 and F32; and every tensor that the graph does not
// use, but for a list of such as have no part in embeddings (lm_head, rotary tables).
Result<GraphWeights> find_graph_weights(const ModelConfig& config, const SafetensorsFolder& folder);

// "[256, 768]"
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace tessera
