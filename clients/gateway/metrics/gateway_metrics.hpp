#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "clients/gateway/http/server.hpp"
#include "common/wire/protocol_metrics.hpp"

namespace tessera {
class MetricFamilies;
}

namespace tessera::gateway {

// What one loop says of itself, about once a second.
struct LoopFigures {
  std::size_t connections = 0;
  std::size_t open_questions = 0;  // To the coordinator.
  std::uint64_t reconnects = 0;
  std::uint64_t asked_again = 0;
  bool coordinator_answers = false;
};

// What the process counts, of all its loops: any thread, by a lock that is held for a few lookups.
class GatewayMetrics {
 public:
  GatewayMetrics(std::size_t loops, std::string version);

  void on_finished(const http::Finished& finished);
  void publish(std::size_t loop, const LoopFigures& figures);
  // A batch that this gateway works on, in metrics a job: what its status is now.
  void on_job(const std::string& id, const std::string& status);
  void on_job_left(const std::string& id);
  void on_job_lines(std::uint64_t completed, std::uint64_t failed);
  // The gateway's own metrics and those of its process.
  std::vector<protocol::MetricFamily> families() const;

 private:
  void add_jobs(MetricFamilies& out) const;
  struct RouteCounts {
    std::map<int, std::uint64_t> by_status;
    protocol::Histogram seconds;
    std::uint64_t bytes_in = 0;
    std::uint64_t bytes_out = 0;
    std::uint64_t cut_off = 0;
  };
  using RouteKey = std::pair<std::string, std::string>;  // Pattern and method.

  const std::string version_;
  const std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();
  mutable std::mutex mutex_;  // Guards what follows.
  std::map<RouteKey, RouteCounts> routes_;
  std::vector<LoopFigures> loops_;
  std::map<std::string, std::string> jobs_;          // Status by id.
  std::map<std::string, std::uint64_t> jobs_ended_;  // By status.
  std::uint64_t lines_completed_ = 0;
  std::uint64_t lines_failed_ = 0;
};

}  // namespace tessera::gateway
