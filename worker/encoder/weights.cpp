#include "worker/encoder/weights.hpp"

#include <string>
#include <utility>

#include "common/check.hpp"
#include "common/model/weights/graph_tensors.hpp"

namespace tessera::worker {
namespace {

using kernels::MatrixSlice;

kernels::DType dtype_of(TensorType type) {
  CHECK(type != TensorType::kOther);
  return type == TensorType::kFloat32   ? kernels::DType::kFloat32
         : type == TensorType::kFloat16 ? kernels::DType::kFloat16
                                        : kernels::DType::kBFloat16;
}

// Finds tensors by their names in the graph, less ".weight".
class Source {
 public:
  Source(const ModelConfig& config, const SafetensorsFolder& folder) {
    auto found = find_graph_weights(config, folder);
    if (!found) {
      throw FatalError(found.error().message);
    }
    weights_ = std::move(*found);
  }

  // The whole tensor as a matrix; a vector is one row.
  MatrixSlice get(const std::string& name, const std::vector<std::int64_t>& shape) const {
    const auto found = weights_.find(name + ".weight");
    CHECK(found != weights_.end());
    const TensorView& tensor = *found->second.second;
    CHECK(tensor.shape == shape);
    return {.data = tensor.bytes.data(),
            .type = dtype_of(tensor.type),
            .rows = shape.size() == 1 ? 1 : shape[0],
            .cols = shape.back(),
            .row_stride = shape.back(),
            .name = found->second.first};
  }

 private:
  GraphWeights weights_;
};

LayerWeights load_layer(kernels::Backend& backend, const ModelConfig& c, const Source& source,
                        std::int64_t index, RankShare share) {
  const std::string layer = "layers." + std::to_string(index) + ".";
  const auto vector = [&](const std::string& name, std::int64_t size) {
    return backend.load_vector(source.get(layer + name, {size}));
  };
  const auto rows = [&](const std::string& name, std::int64_t out) {
    return row_share(source.get(layer + name, {out, c.hidden_size}), share);
  };
  const auto columns = [&](const std::string& name, std::int64_t in) {
    return backend.load_linear(
        {.name = layer + name,
         .slices = {column_share(source.get(layer + name, {c.hidden_size, in}), share)},
         .partial = share.size > 1});
  };
  LayerWeights weights;
  weights.qkv = backend.load_linear(
      {.name = layer + "self_attn.qkv",
       .slices = {rows("self_attn.q_proj", c.q_width()), rows("self_attn.k_proj", c.kv_width()),
                  rows("self_attn.v_proj", c.kv_width())},
       .norm = source.get(layer + "input_layernorm", {c.hidden_size})});
  weights.q_norm = vector("self_attn.q_norm", c.head_dim);
  weights.k_norm = vector("self_attn.k_norm", c.head_dim);
  weights.o = columns("self_attn.o_proj", c.q_width());
  weights.gate_up =
      backend.load_linear({.name = layer + "mlp.gate_up",
                           .slices = {rows("mlp.gate_proj", c.intermediate_size),
                                      rows("mlp.up_proj", c.intermediate_size)},
                           .norm = source.get(layer + "post_attention_layernorm", {c.hidden_size}),
                           .layout = kernels::RowLayout::kGateUpPair});
  weights.down = columns("mlp.down_proj", c.intermediate_size);
  return weights;
}

}  // namespace

kernels::EncoderShape encoder_shape(const ModelConfig& config, RankShare share) {
  const Result<void> split = check_tensor_split(config, share.size);
  if (!split) {
    throw FatalError(split.error().message);
  }
  return shard_shape(config, share.size);
}

EncoderWeights load_weights(kernels::Backend& backend, const ModelConfig& config,
                            const SafetensorsFolder& folder, RankShare share) {
  const Source source(config, folder);
  EncoderWeights weights;
  weights.embed_tokens =
      backend.load_table(source.get("embed_tokens", {config.vocab_size, config.hidden_size}));
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back(load_layer(backend, config, source, i, share));
  }
  weights.norm = backend.load_vector(source.get("norm", {config.hidden_size}));
  backend.finish_loading();
  return weights;
}

}  // namespace tessera::worker
