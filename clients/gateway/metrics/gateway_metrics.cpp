#include "clients/gateway/metrics/gateway_metrics.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "clients/gateway/metrics/process_metrics.hpp"
#include "common/histogram.hpp"
#include "common/metric_families.hpp"

namespace tessera::gateway {
namespace {

constexpr std::array<std::string_view, 4> kOpenStatuses{"validating", "in_progress", "finalizing",
                                                        "cancelling"};
constexpr std::array<std::string_view, 4> kEndedStatuses{"completed", "failed", "expired",
                                                         "cancelled"};

double count_of(std::uint64_t count) { return static_cast<double>(count); }

}  // namespace

GatewayMetrics::GatewayMetrics(std::size_t loops, std::string version)
    : version_(std::move(version)), loops_(loops) {}

void GatewayMetrics::on_finished(const http::Finished& finished) {
  // A path without a route is any of endlessly many: they share one name.
  const RouteKey key(finished.route.empty() ? "none" : std::string(finished.route),
                     std::string(http::to_string(finished.request->method)));
  const std::lock_guard lock(mutex_);
  RouteCounts& counts = routes_[key];
  if (counts.seconds.counts.empty()) {
    counts.seconds = make_histogram(seconds_bounds());
  }
  ++counts.by_status[finished.status];
  observe(counts.seconds, static_cast<double>(finished.took.count()) / 1e6);
  counts.bytes_in += finished.bytes_in;
  counts.bytes_out += finished.bytes_out;
  counts.cut_off += finished.complete ? 0 : 1;
}

void GatewayMetrics::publish(std::size_t loop, const LoopFigures& figures) {
  const std::lock_guard lock(mutex_);
  loops_.at(loop) = figures;
}

void GatewayMetrics::on_job(const std::string& id, const std::string& status) {
  const std::lock_guard lock(mutex_);
  jobs_[id] = status;
}

void GatewayMetrics::on_job_left(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) {
    return;
  }
  if (std::ranges::find(kEndedStatuses, found->second) != kEndedStatuses.end()) {
    ++jobs_ended_[found->second];
  }
  jobs_.erase(found);
}

void GatewayMetrics::on_job_lines(std::uint64_t completed, std::uint64_t failed) {
  const std::lock_guard lock(mutex_);
  lines_completed_ += completed;
  lines_failed_ += failed;
}

void GatewayMetrics::add_jobs(MetricFamilies& out) const {
  out.gauge("tessera_gateway_jobs", "OpenAI batches that this gateway works on.");
  for (const std::string_view status : kOpenStatuses) {
    out.sample(count_of(static_cast<std::uint64_t>(std::ranges::count_if(
                   jobs_, [&](const auto& job) { return job.second == status; }))),
               format_labels({{"status", std::string(status)}}));
  }
  out.counter("tessera_gateway_jobs_ended_total", "OpenAI batches that ended at this gateway.");
  for (const std::string_view status : kEndedStatuses) {
    const auto found = jobs_ended_.find(std::string(status));
    out.sample(count_of(found == jobs_ended_.end() ? 0 : found->second),
               format_labels({{"status", std::string(status)}}));
  }
  out.counter("tessera_gateway_job_lines_total", "Lines of OpenAI batches that were answered here.")
      .sample(count_of(lines_completed_), format_labels({{"outcome", "completed"}}));
  out.sample(count_of(lines_failed_), format_labels({{"outcome", "failed"}}));
}

std::vector<protocol::MetricFamily> GatewayMetrics::families() const {
  MetricFamilies out;
  const std::lock_guard lock(mutex_);
  const auto labels_of = [](const RouteKey& key) {
    return format_labels({{"route", key.first}, {"method", key.second}});
  };
  const auto each_route = [&](const auto& value_of) {
    for (const auto& [key, counts] : routes_) {
      out.sample(value_of(counts), labels_of(key));
    }
  };
  out.gauge("tessera_gateway_build_info", "1; the version is a label.")
      .sample(1, format_labels({{"version", version_}}));
  out.counter("tessera_gateway_http_requests_total", "Requests that were answered.");
  for (const auto& [key, counts] : routes_) {
    for (const auto& [status, number] : counts.by_status) {
      out.sample(count_of(number),
                 labels_of(key) + "," + format_labels({{"code", std::to_string(status)}}));
    }
  }
  out.histogram("tessera_gateway_http_request_duration_seconds",
                "From a request's head to its answer's last byte.");
  each_route([](const RouteCounts& c) { return c.seconds; });
  out.counter("tessera_gateway_http_request_bytes_total", "Of requests' bodies.");
  each_route([](const RouteCounts& c) { return count_of(c.bytes_in); });
  out.counter("tessera_gateway_http_response_bytes_total", "Of answers' bodies.");
  each_route([](const RouteCounts& c) { return count_of(c.bytes_out); });
  out.counter("tessera_gateway_http_requests_cut_off_total",
              "Requests whose client did not get all of the answer.");
  each_route([](const RouteCounts& c) { return count_of(c.cut_off); });
  LoopFigures sum{.coordinator_answers = !loops_.empty()};
  for (const LoopFigures& loop : loops_) {
    sum.connections += loop.connections;
    sum.open_questions += loop.open_questions;
    sum.reconnects += loop.reconnects;
    sum.asked_again += loop.asked_again;
    sum.coordinator_answers = sum.coordinator_answers && loop.coordinator_answers;
  }
  out.gauge("tessera_gateway_connections", "Open connections of clients.")
      .sample(count_of(sum.connections));
  out.gauge("tessera_gateway_coordinator_up", "1 while a coordinator answers this gateway.")
      .sample(sum.coordinator_answers ? 1 : 0);
  out.gauge("tessera_gateway_coordinator_questions_open", "Not answered by the coordinator yet.")
      .sample(count_of(sum.open_questions));
  out.counter("tessera_gateway_coordinator_reconnects_total", "Fresh connections after silence.")
      .sample(count_of(sum.reconnects));
  out.counter("tessera_gateway_coordinator_retries_total",
              "Questions asked again after a lost connection or a restart.")
      .sample(count_of(sum.asked_again));
  add_jobs(out);
  add_process_metrics(out, started_at_);
  return out.take();
}

}  // namespace tessera::gateway
