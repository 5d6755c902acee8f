#pragma once

#include <cstdint>
#include <string>
#include <vector>

// The part of the protocol that carries figures: what a worker counts, and all that a coordinator
// gives to whoever shows or stores it.
namespace tessera::protocol {

// How often values fell between bounds. Empty: nothing was counted, by an older peer.
struct Histogram {
  std::vector<double> bounds;  // Inclusive upper ones, ascending; beyond the last is one more.
  std::vector<std::uint64_t> counts;  // [bounds + 1], each bucket by itself.
  double sum = 0;                     // Of all values.
};

// worker to coordinator: totals since the process began, about each WorkerWelcome::metrics_ms.
struct WorkerMetrics {
  std::uint64_t batches = 0;
  std::uint64_t sequences = 0;
  std::uint64_t tokens = 0;
  std::uint64_t failed_sequences = 0;  // Without a finite vector.
  std::uint64_t busy_us = 0;           // Computing: batches add up to it, none is counted twice.
  Histogram batch_seconds;             // Computing one batch,
  Histogram item_seconds;              // and of it each sequence's share by its tokens.
  Histogram batch_fill;                // Tokens of a batch / max_batch_tokens, 0..1.
  double tokens_per_second = 0;        // Over the last seconds.
  double peak_tokens_per_second = 0;   // The highest rate while computing, of the last ten minutes.
  double busy_share = 0;               // Of the last seconds, 0..1.
  double temperature_c = 0;            // Of the hottest device; 0 = not known.
  std::uint32_t batches_held = 0;
};

enum class MetricType : std::uint8_t { kCounter = 0, kGauge = 1, kHistogram = 2 };

// One metric with all its label values.
struct MetricFamily {
  std::string name;
  std::string help;
  MetricType type = MetricType::kGauge;
  std::vector<std::string> labels;  // One a sample, as Prometheus writes them: `lane="bulk"`.
  std::vector<double> bounds;       // Of a histogram's buckets, as Histogram::bounds.
  std::vector<double> values;       // One a sample; of a histogram bounds + 1 counts and the sum.
};

// client to coordinator
struct MetricsRequest {
  std::uint64_t request_id = 0;
};

// coordinator to client: its own figures and those of every worker.
struct MetricsReply {
  std::uint64_t request_id = 0;
  std::vector<MetricFamily> families;
};

}  // namespace tessera::protocol
