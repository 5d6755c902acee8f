#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <span>

#include "common/wire/protocol.hpp"

namespace tessera::worker {

// What a worker counts of its batches. Owned by the link's thread; the moment is an argument.
class RunMetrics {
 public:
  using Clock = std::chrono::steady_clock;

  RunMetrics(std::int64_t max_batch_tokens, Clock::time_point now);

  // A batch that was computed: `lengths` of its sequences, whose result it is.
  void on_batch(std::span<const std::uint32_t> lengths, const protocol::BatchResult& result);
  // The figures as they stand; call about once a second, since the rates are of the time between.
  protocol::WorkerMetrics report(Clock::time_point now);

 private:
  // Between two reports.
  struct Window {
    std::uint64_t tokens = 0;
    std::uint64_t busy_us = 0;
    double seconds = 0;
  };

  void note_peak(const Window& window, Clock::time_point now);

  const double max_batch_tokens_;
  protocol::WorkerMetrics totals_;
  std::uint64_t reported_tokens_ = 0;
  std::uint64_t reported_busy_us_ = 0;
  Clock::time_point reported_at_;
  std::deque<Window> recent_;
  std::array<double, 10> peaks_{};  // Tokens per second, by minute.
  std::int64_t minute_ = -1;
};

}  // namespace tessera::worker
