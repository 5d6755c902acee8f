#pragma once

#include <span>
#include <vector>

#include "coordinator/core/flow/item_flow.hpp"
#include "coordinator/core/jobs/job_desk.hpp"
#include "coordinator/core/plumbing_metrics.hpp"
#include "coordinator/core/queries/query_desk.hpp"
#include "coordinator/core/records/record_desk.hpp"
#include "coordinator/core/scheduling/dispatcher.hpp"

namespace tessera::coordinator {

struct MetricSources {
  std::span<const ServedModel> models;
  std::uint64_t epoch = 0;
  Micros uptime_us = 0;
  std::size_t clients = 0;
  const Dispatcher& dispatcher;
  const ItemFlow& flow;
  const QueryDesk& queries;
  const JobDesk& jobs;
  const RecordDesk& records;
  const PlumbingMetrics& plumbing;
};

// All figures of the coordinator and of its workers, as metrics with Prometheus' names. Fits a
// message's header: of very many workers the last by name are left out, and counted.
std::vector<protocol::MetricFamily> core_metrics(const MetricSources& sources, Micros now);

}  // namespace tessera::coordinator
