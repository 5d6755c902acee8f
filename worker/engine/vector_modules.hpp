#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/model/model_folder.hpp"
#include "common/model/weights/dense_weights.hpp"

namespace tessera::worker {

// The modules of a folder behind its pooling, in float32 on the host, and unit length at the end.
// An output is a sum over inputs in their order, whatever the batch and the processor: a row's bits
// depend on the row alone. 2560 x 1024 takes a core about 0.4 ms for one row and 0.14 ms a row for
// eight or more; batches of many rows are shared out to more threads.
class VectorModules {
 public:
  // Reads the Dense modules' weights; throws FatalError when they cannot be used.
  explicit VectorModules(const ModelFolder& folder);

  std::int64_t in_features() const { return in_features_; }
  std::int64_t out_features() const { return out_features_; }

  // rows: [n, in_features] to out: [n, out_features]. finite: [n], 0 where a row is to be left
  // alone, and set to 0 where a result is NaN or Inf or has length 0.
  void apply(std::span<const float> rows, std::span<float> out,
             std::span<std::uint8_t> finite) const;

 private:
  struct Step {
    VectorModule module;
    std::vector<float> transposed;  // [in_features, out_features]
    std::vector<float> bias;
  };
  void apply_some(const float* rows, float* out, std::uint8_t* finite, std::int64_t count) const;

  std::vector<Step> steps_;
  std::int64_t in_features_ = 0;
  std::int64_t out_features_ = 0;
  std::int64_t widest_ = 0;
};

}  // namespace tessera::worker
