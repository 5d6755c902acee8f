#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/engine/workload.hpp"
#include "common/model/settings/model_config.hpp"

namespace tessera::bench {

// How fast the matrix products of a layer are, in seconds a token of all layers. A chip that has
// drawn its full power for a second is slower than in its first milliseconds, and an encoder runs
// for seconds: `kept_up` counts; `burst` is what each product alone reaches in its first launches.
struct ProductRates {
  double kept_up_s = 0;
  double burst_s = 0;
};

// What a pass over some batches takes if it were nothing but matrix products at the rate of large
// ones and attention at our kernel's rate.
struct PassLimit {
  ProductRates products;
  double tokens = 0;
  double attention_s = 0;
  double seconds() const { return products.kept_up_s * tokens + attention_s; }
  double burst_seconds() const { return products.burst_s * tokens + attention_s; }
};

class LimitProbe {
 public:
  // Chooses algorithms for the four products of a layer over `rows` rows and keeps their operands
  // on the device. Throws FatalError without a GPU.
  LimitProbe(const ModelConfig& config, std::int64_t rows);
  ~LimitProbe();

  // Measured now: each product alone for some milliseconds, all in turns for 2.5 s, attention.
  PassLimit limit(const std::vector<PackedBatch>& batches) const;
  double tflops(double seconds_per_token) const {
    return weight_bytes() / seconds_per_token / 1e12;
  }
  double copy_bytes_per_s() const { return copy_bytes_per_s_; }
  double weight_bytes() const;  // of all layers, each read once by a pass

 private:
  struct Layer;
  ProductRates product_rates() const;

  ModelConfig config_;
  std::int64_t rows_;
  std::unique_ptr<Layer> layer_;
  double copy_bytes_per_s_ = 0;  // read and written
};

}  // namespace tessera::bench
