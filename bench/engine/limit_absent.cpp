#include "bench/engine/limit.hpp"
#include "common/check.hpp"

namespace tessera::bench {

struct LimitProbe::Layer {};

LimitProbe::LimitProbe(const ModelConfig&, std::int64_t) {
  throw FatalError("the limit is measured on a GPU");
}
LimitProbe::~LimitProbe() = default;
PassLimit LimitProbe::limit(const std::vector<PackedBatch>&) const { return {}; }
double LimitProbe::weight_bytes() const { return 0; }

}  // namespace tessera::bench
