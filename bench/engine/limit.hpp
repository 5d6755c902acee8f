#pragma once

#include <cstdint>
#include <vector>

#include "bench/engine/workload.hpp"
#include "common/model/model_config.hpp"

namespace tessera::bench {

// What a pass over these batches takes if it were nothing but matrix products at the rate of large
// ones and attention at our kernel's rate, both measured now. `seconds` counts products at the rate
// that they keep up: the encoder runs for seconds, and a chip that has drawn its full power for one
// second is slower than in its first milliseconds, whose rate `burst_seconds` counts.
struct PassLimit {
  double products_s = 0;
  double burst_products_s = 0;
  double attention_s = 0;
  double seconds() const { return products_s + attention_s; }
  double burst_seconds() const { return burst_products_s + attention_s; }
};

class LimitProbe {
 public:
  // Times the four products of a layer over `rows` rows, each alone for some milliseconds and all
  // in turns for seconds. Throws FatalError without a GPU.
  LimitProbe(const ModelConfig& config, std::int64_t rows);
  PassLimit limit(const std::vector<PackedBatch>& batches) const;
  double products_tflops() const;        // kept up
  double burst_products_tflops() const;  // of the first milliseconds
  double copy_bytes_per_s() const { return copy_bytes_per_s_; }
  double weight_bytes() const;  // of all layers, each read once by a pass

 private:
  ModelConfig config_;
  double product_s_per_token_ = 0;  // of all layers, kept up
  double burst_s_per_token_ = 0;
  double copy_bytes_per_s_ = 0;  // read and written
};

}  // namespace tessera::bench
