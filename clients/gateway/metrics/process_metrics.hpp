#pragma once

#include <chrono>

#include "common/metric_families.hpp"

namespace tessera::gateway {

// CPU time, memory and descriptors of this process, under the names that Prometheus' own client
// libraries give them.
void add_process_metrics(MetricFamilies& out, std::chrono::system_clock::time_point started_at);

}  // namespace tessera::gateway
