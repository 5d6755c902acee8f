#include "coordinator/core/scheduling/worker_metrics.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "coordinator/core/items/served_model.hpp"
#include "coordinator/core/scheduling/model_identity.hpp"

namespace tessera::coordinator {
namespace {

// A label of 256 bytes on 20 metrics of 150 workers leaves half of a header free.
constexpr std::size_t kLabelBytesMax = 600U << 10;
constexpr std::size_t kMetricsPerWorker = 20;
constexpr std::size_t kHistogramBytes = 512;

struct Listed {
  const Worker* worker = nullptr;
  std::string labels;  // worker and model
};

// By name. Of several with one name, which a metric could not tell apart, the later ones are
// numbered, in the order of their processes' numbers.
std::vector<Listed> list_workers(const WorkerRegistry& workers, std::size_t& left_out) {
  std::multimap<std::pair<std::string_view, std::uint64_t>, const Worker*> by_name;
  for (const auto& [peer, worker] : workers.all()) {
    by_name.emplace(
        std::pair<std::string_view, std::uint64_t>(worker.hello.name, worker.hello.process),
        &worker);
  }
  std::vector<Listed> listed;
  std::set<std::string> taken;
  std::size_t bytes = 0;
  for (const auto& [key, worker] : by_name) {
    std::string shown(key.first);
    for (int number = 2; !taken.insert(shown).second; ++number) {
      shown = std::string(key.first) + "~" + std::to_string(number);
    }
    std::string labels = format_labels({{"worker", shown}, {"model", worker->hello.model}});
    bytes += labels.size() * kMetricsPerWorker + kHistogramBytes;
    if (bytes > kLabelBytesMax) {
      ++left_out;
    } else {
      listed.push_back({worker, std::move(labels)});
    }
  }
  return listed;
}

using Value = std::function<double(const Worker&)>;

void add_each(MetricFamilies& out, const std::vector<Listed>& listed, const Value& value_of) {
  for (const Listed& entry : listed) {
    out.sample(value_of(*entry.worker), entry.labels);
  }
}

// Of those that report.
void add_reported(MetricFamilies& out, const std::vector<Listed>& listed,
                  const std::function<double(const protocol::WorkerMetrics&)>& value_of) {
  for (const Listed& entry : listed) {
    if (entry.worker->metrics) {
      out.sample(value_of(*entry.worker->metrics), entry.labels);
    }
  }
}

void add_histogram(MetricFamilies& out, const std::vector<Listed>& listed,
                   protocol::Histogram protocol::WorkerMetrics::*histogram) {
  for (const Listed& entry : listed) {
    if (entry.worker->metrics) {
      out.sample((*entry.worker->metrics).*histogram, entry.labels);
    }
  }
}

void add_counters(MetricFamilies& out, const std::vector<Listed>& listed) {
  using M = protocol::WorkerMetrics;
  out.counter("tessera_worker_batches_total", "Batches that the worker has computed.");
  add_each(out, listed, [](const Worker& w) {
    return static_cast<double>(w.metrics ? w.metrics->batches : w.batches_done);
  });
  out.counter("tessera_worker_tokens_total", "Tokens that the worker has computed.");
  add_each(out, listed, [](const Worker& w) {
    return static_cast<double>(w.metrics ? w.metrics->tokens : w.tokens_done);
  });
  out.counter("tessera_worker_sequences_total", "Sequences that the worker has computed.");
  add_reported(out, listed, [](const M& m) { return static_cast<double>(m.sequences); });
  out.counter("tessera_worker_failed_sequences_total", "Sequences without a finite vector.");
  add_reported(out, listed, [](const M& m) { return static_cast<double>(m.failed_sequences); });
  out.counter("tessera_worker_busy_seconds_total",
              "Time computing: batches add up to it, none is counted twice.");
  add_reported(out, listed, [](const M& m) { return static_cast<double>(m.busy_us) / 1e6; });
}

void add_gauges(MetricFamilies& out, const std::vector<Listed>& listed) {
  using M = protocol::WorkerMetrics;
  out.gauge("tessera_worker_tokens_per_second", "Over the last seconds.");
  add_each(out, listed, [](const Worker& w) { return w.tokens_per_second; });
  out.gauge("tessera_worker_peak_tokens_per_second",
            "What it computes when it has enough to do: the best of the last ten minutes.");
  add_each(out, listed, peak_tokens_per_second);
  out.gauge("tessera_worker_batches_in_flight", "Batches sent to it and not answered.");
  add_each(out, listed, [](const Worker& w) { return static_cast<double>(w.batches.size()); });
  out.gauge("tessera_worker_max_batch_tokens", "The most that one of its batches holds.");
  add_each(out, listed, [](const Worker& w) { return double{1} * w.hello.max_batch_tokens; });
  out.gauge("tessera_worker_busy_ratio", "Share of the last seconds spent computing.");
  add_reported(out, listed, [](const M& m) { return m.busy_share; });
  out.gauge("tessera_worker_temperature_celsius", "Of its hottest device, where that is known.");
  for (const Listed& entry : listed) {
    if (entry.worker->metrics && entry.worker->metrics->temperature_c > 0) {
      out.sample(entry.worker->metrics->temperature_c, entry.labels);
    }
  }
}

void add_info(MetricFamilies& out, const std::vector<Listed>& listed) {
  out.gauge("tessera_worker_info", "1; what the worker is are its labels.");
  for (const Listed& entry : listed) {
    const protocol::WorkerHello& hello = entry.worker->hello;
    out.sample(1, entry.labels + "," +
                      format_labels({{"device", hello.device},
                                     {"group_size", std::to_string(hello.group_size)},
                                     {"fingerprint", own_fingerprint(hello).substr(0, 16)}}));
  }
}

}  // namespace

double peak_tokens_per_second(const Worker& worker) {
  if (worker.metrics && worker.metrics->peak_tokens_per_second > 0) {
    return worker.metrics->peak_tokens_per_second;
  }
  const double tokens = worker.hello.max_batch_tokens;
  const double seconds = worker.hello.cost_s + worker.hello.cost_s_per_token * tokens;
  return seconds > 0 ? tokens / seconds : worker.drain_rate;
}

void add_worker_metrics(MetricFamilies& out, std::span<const ServedModel> models,
                        const WorkerRegistry& workers) {
  out.gauge("tessera_workers", "Workers that are registered.");
  for (ModelId model = 0; model < models.size(); ++model) {
    out.sample(workers.count(model), format_labels({{"model", models[model].name}}));
  }
  std::size_t left_out = 0;
  const std::vector<Listed> listed = list_workers(workers, left_out);
  out.gauge("tessera_workers_not_listed",
            "Workers whose own metrics are left out for their number.")
      .sample(static_cast<double>(left_out));
  add_info(out, listed);
  add_counters(out, listed);
  add_gauges(out, listed);
  out.histogram("tessera_worker_batch_duration_seconds", "Computing one batch.");
  add_histogram(out, listed, &protocol::WorkerMetrics::batch_seconds);
  out.histogram("tessera_worker_item_duration_seconds",
                "A sequence's share of its batch's time, by its tokens.");
  add_histogram(out, listed, &protocol::WorkerMetrics::item_seconds);
  out.histogram("tessera_worker_batch_fill_ratio", "Tokens of a batch by the most it may hold.");
  add_histogram(out, listed, &protocol::WorkerMetrics::batch_fill);
}

}  // namespace tessera::coordinator
