#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.hpp"

namespace tessera {

// config.json of a Qwen3 dense decoder, names as in the file. Made only by the functions below, so
// every value has been checked against the limits there and against the others.
struct ModelConfig {
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e6;
  bool tie_word_embeddings = false;
  std::string torch_dtype;   // of the file's weights, as the file says; informative
  std::string architecture;  // the first that the file names, such as "Qwen3ForCausalLM", or empty

  std::int64_t q_width() const { return num_attention_heads * head_dim; }
  std::int64_t kv_width() const { return num_key_value_heads * head_dim; }
  // Weights of one layer's matrix products: q, k, v, o, gate, up, down.
  std::int64_t linear_parameters_per_layer() const;
  // Everything the encoder loads: the table, the layers and the norms, without an lm_head.
  std::int64_t parameters() const;
};

inline constexpr std::size_t kModelConfigBytesMax = 1 << 20;

// Reads by an allow-list, with the defaults of transformers' Qwen3Config: each key is used, or is
// known to leave vectors as they are, or is refused with its value. Refused is thereby what the
// encoder would compute wrongly: another architecture, activation, attention bias, scaled RoPE,
// sliding windows, attention that is not causal, quantised weights, custom code, heads that do not
// divide, values out of range. `file` is how complaints name the text.
Result<ModelConfig> parse_model_config(std::string_view json,
                                       const std::string& file = "config.json");

}  // namespace tessera
