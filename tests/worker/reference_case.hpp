#pragma once

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/model/synthetic_model.hpp"
#include "tests/common/model/scratch_folder.hpp"
#include "tests/worker/embed_helpers.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {

// A small model of random weights and the vectors that transformers gave for it in float32
// (tests/data/make_reference.py).
struct Reference {
  ModelConfig config;
  SyntheticWeights weights;
  std::vector<Ids> ids;  // lengths 1, 2, 17, 128, 511
  std::vector<std::vector<float>> vectors;
};

inline Reference read_reference(const std::string& name) {
  std::ifstream file("tests/data/reference/" + name + ".json");
  const nlohmann::json root = nlohmann::json::parse(file);
  const nlohmann::json& c = root.at("config");
  Reference reference;
  reference.config = {.hidden_size = c.at("hidden_size"),
                      .num_hidden_layers = c.at("num_hidden_layers"),
                      .intermediate_size = c.at("intermediate_size"),
                      .num_attention_heads = c.at("num_attention_heads"),
                      .num_key_value_heads = c.at("num_key_value_heads"),
                      .head_dim = c.at("head_dim"),
                      .vocab_size = c.at("vocab_size"),
                      .max_position_embeddings = 1024,
                      .rms_norm_eps = c.at("rms_norm_eps"),
                      .rope_theta = c.at("rope_theta"),
                      .tie_word_embeddings = true,
                      .torch_dtype = c.value("type", "bfloat16")};
  reference.weights.seed = root.at("seed");
  reference.weights.type =
      reference.config.torch_dtype == "float32" ? TensorType::kFloat32 : TensorType::kBFloat16;
  for (const nlohmann::json& item : root.at("items")) {
    reference.ids.push_back(item.at("ids").get<Ids>());
    reference.vectors.push_back(item.at("vector").get<std::vector<float>>());
  }
  return reference;
}

// The reference's model, made in a folder, and an engine on it.
struct Served {
  Served(const Reference& reference, kernels::DType type, int threads = 2,
         const char* device = "cpu") {
    folder.write("config.json", model_config_json(reference.config));
    folder.write("tokenizer.json", "{}");
    write_synthetic_weights(folder.path(), reference.config, reference.weights);
    engine = create_engine({.model_dir = folder.path(),
                            .device = device,
                            .threads = threads,
                            .max_batch_tokens = 2048,
                            .weight_type = type,
                            .measure_cost = false});
  }
  ScratchFolder folder;
  std::unique_ptr<Engine> engine;
};

}  // namespace tessera::worker
