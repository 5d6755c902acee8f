#pragma once

#include <cstdint>
#include <filesystem>
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
  std::string torch_dtype;  // of the file's weights, as the file says; informative

  std::int64_t q_width() const { return num_attention_heads * head_dim; }
  std::int64_t kv_width() const { return num_key_value_heads * head_dim; }
  // Weights of one layer's matrix products: q, k, v, o, gate, up, down.
  std::int64_t linear_parameters_per_layer() const;
  // Everything the encoder loads: the table, the layers and the norms, without an lm_head.
  std::int64_t parameters() const;
};

inline constexpr std::size_t kModelConfigBytesMax = 1 << 20;

// Refuses what the encoder would compute wrongly: another architecture, activation, attention bias,
// RoPE scaling, sliding windows, heads that do not divide, values out of range.
Result<ModelConfig> parse_model_config(std::string_view json);

// Reads DIR/config.json and, where it exists, DIR/1_Pooling/config.json, which must ask for the
// last token.
Result<ModelConfig> read_model_config(const std::filesystem::path& model_dir);

// The whole file, or an error when it cannot be read or is larger than `bytes_max`.
Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t bytes_max);

}  // namespace tessera
