#pragma once

#include <span>

#include "common/metric_families.hpp"
#include "coordinator/core/items/served_model.hpp"
#include "coordinator/core/scheduling/worker_registry.hpp"

namespace tessera::coordinator {

// The figures of every worker, as it reported them last; of older workers, which report none, what
// the coordinator counts itself.
void add_worker_metrics(MetricFamilies& out, std::span<const ServedModel> models,
                        const WorkerRegistry& workers);

// Tokens per second that the worker computes when it has enough to do: as it measured, or before it
// did (or where it is an older one) by its cost model.
double peak_tokens_per_second(const Worker& worker);

}  // namespace tessera::coordinator
