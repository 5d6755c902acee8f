#pragma once

#include <span>

#include "common/metric_families.hpp"
#include "coordinator/core/worker_registry.hpp"

namespace tessera::coordinator {

// The figures of every worker, as it reported them last; of older workers, which report none, what
// the coordinator counts itself.
void add_worker_metrics(MetricFamilies& out, std::span<const ServedModel> models,
                        const WorkerRegistry& workers);

}  // namespace tessera::coordinator
