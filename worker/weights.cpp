#include "worker/weights.hpp"

#include <string>

namespace tessera {
namespace {

using kernels::MatrixSlice;

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  }
  return text + "]";
}

// Finds tensors by the names of the Hugging Face implementation, less the `model.` prefix.
class Source {
 public:
  explicit Source(const SafetensorsFolder& folder)
      : folder_(folder), prefix_(folder.find("model.norm.weight") != nullptr ? "model." : "") {}

  // The whole tensor as a matrix; a vector is one row.
  MatrixSlice get(const std::string& name, const std::vector<std::int64_t>& shape) const {
    const std::string full_name = prefix_ + name + ".weight";
    const TensorView* tensor = folder_.find(full_name);
    if (tensor == nullptr) {
      throw FatalError("weights: tensor " + full_name + " is missing");
    }
    if (tensor->shape != shape) {
      throw FatalError("weights: " + full_name + " has shape " + shape_text(tensor->shape) +
                       ", config.json asks for " + shape_text(shape));
    }
    if (tensor->type != TensorType::kBFloat16 && tensor->type != TensorType::kFloat32) {
      throw FatalError("weights: " + full_name + " is neither BF16 nor F32");
    }
    return {.data = tensor->bytes.data(),
            .type = tensor->type == TensorType::kFloat32 ? kernels::DType::kFloat32
                                                         : kernels::DType::kBFloat16,
            .rows = shape.size() == 1 ? 1 : shape[0],
            .cols = shape.back(),
            .row_stride = shape.back()};
  }

 private:
  const SafetensorsFolder& folder_;
  const std::string prefix_;
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
  const Source source(folder);
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

}  // namespace tessera
