#include "coordinator/core/core_metrics.hpp"

#include <algorithm>
#include <array>

#include "common/metric_families.hpp"
#include "coordinator/core/scheduling/worker_metrics.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::array<std::string_view, kLanes> kLaneNames = {"interactive", "bulk"};
constexpr std::array<std::string_view, kItemSources> kSourceNames = {"none", "computed", "joined",
                                                                     "memory", "storage"};
// In the order of ledger::Operation.
constexpr std::array kOperationNames = {
    "create_job", "accept_chunk", "check_chunk", "store_result", "ack_result",
    "close_job",  "end_job",      "forget_job",  "fetch_chunk",  "fetch_result",
    "check_term", "put_record",   "drop_record"};
static_assert(kOperationNames.size() == PlumbingMetrics::kOperations);

std::string lane_label(std::size_t lane) { return format_labels({{"lane", kLaneNames[lane]}}); }

// All codes from the first scrape on: the rise of a counter that was not there is not seen.
void add_errors(MetricFamilies& out, const ErrorCounts& errors) {
  for (std::size_t code = 1; code < errors.size(); ++code) {
    out.sample(static_cast<double>(errors[code]),
               format_labels({{"code", to_string(static_cast<ErrorCode>(code))}}));
  }
}

void add_process(MetricFamilies& out, const MetricSources& sources) {
  out.gauge("tessera_coordinator_uptime_seconds", "Since this coordinator began to lead.")
      .sample(seconds_of(sources.uptime_us));
  out.gauge("tessera_coordinator_leader_term", "Leader term: raised by each start.")
      .sample(static_cast<double>(sources.epoch));
  out.gauge("tessera_coordinator_clients", "Client connections heard within the last hour.")
      .sample(static_cast<double>(sources.clients));
  out.gauge("tessera_coordinator_build_info", "1; the version is a label.")
      .sample(1, format_labels({{"version", TESSERA_VERSION}}));
}

void add_requests(MetricFamilies& out, const QueryDesk& queries) {
  const QueryMetrics& metrics = queries.metrics();
  out.counter("tessera_requests_total", "Embed requests that came in.");
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    out.sample(static_cast<double>(metrics.requests[lane]), lane_label(lane));
  }
  out.counter("tessera_request_errors_total", "Embed requests refused or ended without vectors.");
  add_errors(out, metrics.errors);
  out.counter("tessera_request_quota_refusals_total",
              "Embed requests refused because their tenant's tokens per minute were used up.")
      .sample(static_cast<double>(metrics.quota_refusals));
  out.histogram("tessera_request_duration_seconds",
                "From an embed request's arrival to its answer.");
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    out.sample(metrics.seconds.lanes[lane], lane_label(lane));
  }
  out.gauge("tessera_requests_open", "Embed requests that are not answered yet.")
      .sample(static_cast<double>(queries.open_requests()));
  out.gauge("tessera_request_items_open", "Items of embed requests that are not answered yet.")
      .sample(static_cast<double>(queries.open_items()));
}

using BySource = std::array<std::array<std::uint64_t, kItemSources>, kLanes>;

void add_by_source(MetricFamilies& out, const BySource& counts) {
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    for (std::size_t source = 0; source < kItemSources; ++source) {
      out.sample(static_cast<double>(counts[lane][source]),
                 format_labels({{"lane", kLaneNames[lane]}, {"source", kSourceNames[source]}}));
    }
  }
}

void add_items(MetricFamilies& out, const ItemFlow& flow) {
  const FlowMetrics& metrics = flow.metrics();
  out.counter("tessera_items_total",
              "Items of requests and jobs by where their vector came from: computed, joined to an "
              "identical item in flight, from the cache in memory or in storage; none: an error.");
  add_by_source(out, metrics.items);
  out.counter("tessera_tokens_total", "Tokens of the items that have a vector, by its source.");
  add_by_source(out, metrics.tokens);
  out.counter("tessera_item_errors_total", "Items that ended with an error.");
  add_errors(out, metrics.errors);
  out.histogram("tessera_item_duration_seconds",
                "total: of every item, from its arrival in work to its end. Of each that was "
                "computed: tokenize, queue (for a worker), and compute: its share of its batch's "
                "time by its tokens, so that items add up to the time busy.");
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    const auto stage = [&](const LaneHistograms& histograms, std::string_view name) {
      out.sample(histograms.lanes[lane],
                 format_labels({{"lane", kLaneNames[lane]}, {"stage", name}}));
    };
    stage(metrics.tokenize, "tokenize");
    stage(metrics.queue, "queue");
    stage(metrics.compute, "compute");
    stage(metrics.total, "total");
  }
  out.gauge("tessera_items_in_work", "Distinct items on their way to a vector.")
      .sample(static_cast<double>(flow.pending_items()));
  out.gauge("tessera_cache_memory_bytes", "Of vectors cached in the coordinator's memory.")
      .sample(static_cast<double>(flow.cache_bytes()));
}

void add_waiting(MetricFamilies& out, const MetricSources& sources, Micros now) {
  const auto each = [&](const auto& value_of) {
    for (ModelId model = 0; model < sources.models.size(); ++model) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        for (std::size_t c = 0; c < WaitingCensus::kClasses; ++c) {
          out.sample(value_of(sources.dispatcher.waiting(model).cell(
                         static_cast<protocol::Lane>(lane), c)),
                     format_labels({{"model", sources.models[model].name},
                                    {"lane", kLaneNames[lane]},
                                    {"length_class", WaitingCensus::class_name(c)}}));
        }
      }
    }
  };
  using Cell = WaitingCensus::Cell;
  out.gauge("tessera_waiting_items", "Distinct items that wait for a worker, by tokens.");
  each([](const Cell& cell) { return static_cast<double>(cell.items); });
  out.gauge("tessera_waiting_tokens", "Tokens that wait for a worker.");
  each([](const Cell& cell) { return static_cast<double>(cell.tokens); });
  out.gauge("tessera_waiting_oldest_age_seconds", "How long the oldest has waited; 0: none waits.");
  each([&](const Cell& cell) { return seconds_of(cell.age(now)); });
}

void add_batches(MetricFamilies& out, const Dispatcher& dispatcher,
                 const PlumbingMetrics& plumbing) {
  const DispatchMetrics& metrics = dispatcher.metrics();
  out.counter("tessera_batches_total", "Batches that workers have answered.")
      .sample(static_cast<double>(metrics.batches));
  out.counter("tessera_express_batches_total", "Of these, batches of queries that overtook others.")
      .sample(static_cast<double>(metrics.express_batches));
  out.counter("tessera_batches_lost_total", "Batches in flight at workers that were lost.")
      .sample(static_cast<double>(metrics.batches_lost));
  out.counter("tessera_items_retried_total", "Items that wait again since their worker was lost.")
      .sample(static_cast<double>(metrics.items_retried));
  out.counter("tessera_workers_lost_total", "Connections to workers that ended without goodbye.")
      .sample(static_cast<double>(metrics.workers_lost));
  out.gauge("tessera_batches_in_flight", "Batches at workers.")
      .sample(static_cast<double>(dispatcher.batches_in_flight()));
  out.gauge("tessera_drain_tokens_per_second", "Measured rate of all workers when they are busy.")
      .sample(dispatcher.drain_rate());
  out.histogram("tessera_batch_duration_seconds",
                "tokenize: of texts that one thread takes together. queue: of a batch's oldest "
                "item. compute: as its worker says. total: queue and the time at the worker.");
  out.sample(plumbing.tokenize, format_labels({{"stage", "tokenize"}}));
  out.sample(metrics.queue, format_labels({{"stage", "queue"}}));
  out.sample(metrics.compute, format_labels({{"stage", "compute"}}));
  out.sample(metrics.total, format_labels({{"stage", "total"}}));
  out.histogram("tessera_batch_fill_ratio", "Tokens of a batch by the most its worker takes.")
      .sample(metrics.fill);
}

void add_jobs(MetricFamilies& out, const JobDesk& jobs) {
  std::array<std::uint64_t, 2> by_state{};
  std::uint64_t accepted = 0;
  std::uint64_t done = 0;
  for (const auto& [id, job] : jobs.table().running()) {
    ++by_state[job->state == protocol::JobState::kOpen ? 0 : 1];
    accepted += job->items_accepted;
    done += job->items_done;
  }
  out.gauge("tessera_jobs", "Jobs that the ledger holds: open (nothing sent yet), running, ended.")
      .sample(static_cast<double>(by_state[0]), format_labels({{"state", "open"}}))
      .sample(static_cast<double>(by_state[1]), format_labels({{"state", "running"}}))
      .sample(static_cast<double>(jobs.table().ended()), format_labels({{"state", "ended"}}));
  out.gauge("tessera_job_items", "Items of running jobs: accepted, and of those done.")
      .sample(static_cast<double>(accepted), format_labels({{"state", "accepted"}}))
      .sample(static_cast<double>(done), format_labels({{"state", "done"}}));
  out.gauge("tessera_job_memory_bytes", "Items and results of jobs in memory.")
      .sample(static_cast<double>(jobs.resident_bytes()));
}

void add_ledger(MetricFamilies& out, const MetricSources& sources) {
  const PlumbingMetrics& plumbing = sources.plumbing;
  out.gauge("tessera_ledger_up", "1 while the ledger's server can be reached.")
      .sample(plumbing.ledger_up ? 1 : 0);
  out.histogram("tessera_ledger_operation_duration_seconds",
                "From asking the ledger to its answer, reconnecting included.");
  for (std::size_t i = 0; i < plumbing.ledger.size(); ++i) {
    out.sample(plumbing.ledger[i], format_labels({{"operation", kOperationNames[i]}}));
  }
  out.counter("tessera_ledger_refusals_total", "Operations that the ledger's server refused.")
      .sample(static_cast<double>(plumbing.ledger_refusals));
  out.gauge("tessera_ledger_operations_open", "Operations that the ledger has not answered yet.")
      .sample(static_cast<double>(sources.jobs.ledger_operations() +
                                  sources.records.ledger_operations()));
  out.gauge("tessera_ledger_owed_bytes", "Of results that the ledger is yet to hold.")
      .sample(static_cast<double>(sources.jobs.owed_bytes()));
  out.histogram("tessera_cache_storage_duration_seconds",
                "Of a lookup of up to 64 items in the cache's second level.")
      .sample(plumbing.cache);
  out.gauge("tessera_records", "Records that clients keep in the ledger.")
      .sample(static_cast<double>(sources.records.records()));
  out.gauge("tessera_records_open", "Of them those with work left to do.")
      .sample(static_cast<double>(sources.records.open_records()));
  out.gauge("tessera_record_bytes", "Of all records.")
      .sample(static_cast<double>(sources.records.bytes()));
}

}  // namespace

std::vector<protocol::MetricFamily> core_metrics(const MetricSources& sources, Micros now) {
  MetricFamilies out;
  add_process(out, sources);
  add_requests(out, sources.queries);
  add_items(out, sources.flow);
  add_waiting(out, sources, now);
  add_batches(out, sources.dispatcher, sources.plumbing);
  add_jobs(out, sources.jobs);
  add_ledger(out, sources);
  add_worker_metrics(out, sources.models, sources.dispatcher.workers());
  return out.take();
}

}  // namespace tessera::coordinator
