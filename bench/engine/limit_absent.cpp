#include "bench/engine/limit.hpp"
#include "common/check.hpp"

namespace tessera::bench {

LimitProbe::LimitProbe(const ModelConfig&, std::int64_t) {
  throw FatalError("the limit is measured on a GPU");
}
PassLimit LimitProbe::limit(const std::vector<PackedBatch>&) const { return {}; }
double LimitProbe::products_tflops() const { return 0; }
double LimitProbe::burst_products_tflops() const { return 0; }
double LimitProbe::weight_bytes() const { return 0; }

}  // namespace tessera::bench
