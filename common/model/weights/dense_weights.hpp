#pragma once

#include <vector>

#include "common/model/settings/sentence_modules.hpp"
#include "common/model/weights/safetensors.hpp"

namespace tessera {

struct DenseWeights {
  std::vector<float> weight;  // [out_features, in_features]
  std::vector<float> bias;    // [out_features], or empty
};

// Reads DIR/model.safetensors of a Dense module: linear.weight and, as its config.json says,
// linear.bias, and nothing else; BF16, F16 or F32, all finite.
Result<DenseWeights> read_dense_weights(const VectorModule& dense);

// Numbers of a tensor as float32, exact for the three types.
Result<std::vector<float>> to_float32(const TensorView& tensor, const std::string& name);

}  // namespace tessera
