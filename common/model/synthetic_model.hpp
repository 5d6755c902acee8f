#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "common/model/settings/model_config.hpp"
#include "common/model/weights/safetensors.hpp"

namespace tessera {

// Random weights of a shape, the same on every machine for one seed; tests/data/make_reference.py
// makes the same ones. Element i of a tensor is
//   s = sum of the four 16-bit parts of splitmix64(fnv1a64(name) ^ splitmix64(seed) + i) - 131070,
// which is nearly normal, scaled to a standard deviation: 1 for the embedding table, 0.1 (about 1)
// for norms and 1 / sqrt(input features) for matrices, so that activations keep their size; then
// rounded to the type. `name` is without prefix.
struct SyntheticWeights {
  std::uint64_t seed = 0;
  TensorType type = TensorType::kBFloat16;
  std::string prefix;                             // of tensor names: "" or "model."
  bool lm_head = false;                           // adds a stray lm_head.weight
  std::uint64_t shard_bytes_max = 4'000'000'000;  // more than this is split, with an index file
  int threads = 0;                                // 0: all cores
};

// Writes model.safetensors, or shards and their index, into an existing folder; holds some 64 MB in
// memory whatever the model's size. `progress` hears of bytes written and to write. Throws
// FatalError when the folder cannot be written.
void write_synthetic_weights(
    const std::filesystem::path& dir, const ModelConfig& config, const SyntheticWeights& weights,
    const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});

// A config.json of `config`, for models whose shape is not one of the shipped ones.
std::string model_config_json(const ModelConfig& config);

// Writes a complete Hugging Face folder: weights, configuration and tokenizer of the shape's size,
// from the shipped data. `shape` is one of tiny, 0.6b, 4b, 8b. Throws FatalError on another word,
// on a folder that already holds a model, and when it cannot be written.
void make_model(const std::filesystem::path& dir, std::string_view shape, std::uint64_t seed,
                const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});

}  // namespace tessera
