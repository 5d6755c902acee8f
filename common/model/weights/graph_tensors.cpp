#include "common/model/weights/graph_tensors.hpp"

#include <utility>

namespace tessera {
namespace {

constexpr std::string_view kPrefix = "model.";

Error refusal(std::string message) {
  return {ErrorCode::kInvalidArgument, "weights: " + std::move(message)};
}

// The head that makes words of vectors, and tables that follow from rope_theta; older versions of
// transformers saved these.
bool has_no_part(std::string_view name) {
  return name == "lm_head.weight" || name == "rotary_emb.inv_freq" ||
         (name.starts_with("layers.") && name.ends_with(".self_attn.rotary_emb.inv_freq"));
}

std::string advice_for(std::string_view name) {
  if (name.find("lora_") != std::string_view::npos) {
    return "a LoRA adapter that was not merged; merge it (merge_and_unload) and save the model "
           "again";
  }
  if (name.ends_with(".bias")) {
    return "a bias, which the Qwen3 graph does not have here; serve such a model with "
           "sentence-transformers";
  }
  if (name.ends_with("_scale") || name.ends_with("_scale_inv") || name.ends_with(".qweight") ||
      name.ends_with(".scales") || name.ends_with(".qzeros")) {
    return "part of quantised weights; use the model's unquantised folder";
  }
  return "no part of the Qwen3 graph that config.json describes, and leaving it out may give other "
         "vectors; use the folder of the plain model, or serve it with sentence-transformers";
}

Result<void> check(const GraphTensor& wanted, std::string_view full_name, const TensorView& found) {
  if (found.shape != wanted.shape) {
    return refusal(std::string(full_name) + " has shape " + shape_text(found.shape) +
                   ", config.json asks for " + shape_text(wanted.shape) +
                   ": these files are not of one model");
  }
  if (found.type == TensorType::kOther) {
    return refusal(std::string(full_name) +
                   " is none of BF16, F16 and F32; use the model's unquantised folder");
  }
  return {};
}

}  // namespace

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  }
  return text + "]";
}

std::vector<GraphTensor> graph_tensors(const ModelConfig& c) {
  std::vector<GraphTensor> tensors = {{"embed_tokens.weight", {c.vocab_size, c.hidden_size}},
                                      {"norm.weight", {c.hidden_size}}};
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    const auto add = [&](const char* name, std::vector<std::int64_t> shape) {
      tensors.push_back({layer + name + ".weight", std::move(shape)});
    };
    add("input_layernorm", {c.hidden_size});
    add("post_attention_layernorm", {c.hidden_size});
    add("self_attn.q_norm", {c.head_dim});
    add("self_attn.k_norm", {c.head_dim});
    add("self_attn.q_proj", {c.q_width(), c.hidden_size});
    add("self_attn.k_proj", {c.kv_width(), c.hidden_size});
    add("self_attn.v_proj", {c.kv_width(), c.hidden_size});
    add("self_attn.o_proj", {c.hidden_size, c.q_width()});
    add("mlp.gate_proj", {c.intermediate_size, c.hidden_size});
    add("mlp.up_proj", {c.intermediate_size, c.hidden_size});
    add("mlp.down_proj", {c.hidden_size, c.intermediate_size});
  }
  return tensors;
}

Result<GraphWeights> find_graph_weights(const ModelConfig& config,
                                        const SafetensorsFolder& folder) {
  GraphWeights by_name;
  for (const auto& [full_name, view] : folder.tensors()) {
    std::string_view name = full_name;
    if (name.starts_with(kPrefix)) {
      name.remove_prefix(kPrefix.size());
    }
    if (!by_name.emplace(name, std::pair(std::string_view(full_name), &view)).second) {
      return refusal(std::string(name) + " is there twice, with and without the prefix \"model.\"");
    }
  }
  GraphWeights weights;
  for (const GraphTensor& wanted : graph_tensors(config)) {
    auto found = by_name.extract(wanted.name);
    if (found.empty()) {
      return refusal("tensor " + wanted.name +
                     " is missing; config.json describes another model, or a file is missing");
    }
    if (auto fits = check(wanted, found.mapped().first, *found.mapped().second); !fits) {
      return fits.error();
    }
    weights.insert(std::move(found));
  }
  for (const auto& [name, entry] : by_name) {
    if (!has_no_part(name)) {
      return refusal("tensor " + std::string(entry.first.substr(0, 200)) + " is " +
                     advice_for(name));
    }
  }
  return weights;
}

}  // namespace tessera
