#include "worker/link/run_metrics.hpp"

#include <algorithm>

#include "common/histogram.hpp"

namespace tessera::worker {
namespace {

constexpr std::size_t kRecentWindows = 5;
constexpr double kRecentSeconds = 60;  // Where reports are rare, a single window is enough.
// A shorter time of work says little about what the device can do.
constexpr std::uint64_t kPeakBusyUsMin = 200'000;

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

}  // namespace

RunMetrics::RunMetrics(std::int64_t max_batch_tokens, Clock::time_point now)
    : max_batch_tokens_(static_cast<double>(max_batch_tokens)), reported_at_(now) {
  totals_.batch_seconds = make_histogram(seconds_bounds());
  totals_.item_seconds = make_histogram(seconds_bounds());
  totals_.batch_fill = make_histogram(share_bounds());
}

void RunMetrics::on_batch(std::span<const std::uint32_t> lengths,
                          const protocol::BatchResult& result) {
  std::uint64_t tokens = 0;
  for (const std::uint32_t length : lengths) {
    tokens += length;
  }
  const double seconds = static_cast<double>(result.compute_us) / 1e6;
  ++totals_.batches;
  totals_.sequences += lengths.size();
  totals_.tokens += tokens;
  totals_.busy_us += result.compute_us;
  totals_.failed_sequences += static_cast<std::uint64_t>(
      std::ranges::count_if(result.codes, [](std::uint8_t code) { return code != 0; }));
  observe(totals_.batch_seconds, seconds);
  observe(totals_.batch_fill, ratio(static_cast<double>(tokens), max_batch_tokens_));
  for (const std::uint32_t length : lengths) {
    observe(totals_.item_seconds, seconds * ratio(length, static_cast<double>(tokens)));
  }
}

void RunMetrics::note_peak(const Window& window, Clock::time_point now) {
  const auto minute =
      std::chrono::duration_cast<std::chrono::minutes>(now.time_since_epoch()).count();
  const auto slots = static_cast<std::int64_t>(peaks_.size());
  for (std::int64_t m = std::max(minute_ + 1, minute - slots + 1); m <= minute; ++m) {
    peaks_[static_cast<std::size_t>(m % slots)] = 0;
  }
  minute_ = minute;
  if (window.busy_us >= kPeakBusyUsMin) {
    double& peak = peaks_[static_cast<std::size_t>(minute % slots)];
    peak = std::max(peak,
                    static_cast<double>(window.tokens) * 1e6 / static_cast<double>(window.busy_us));
  }
}

protocol::WorkerMetrics RunMetrics::report(Clock::time_point now) {
  const Window window{
      .tokens = totals_.tokens - std::exchange(reported_tokens_, totals_.tokens),
      .busy_us = totals_.busy_us - std::exchange(reported_busy_us_, totals_.busy_us),
      .seconds = std::chrono::duration<double>(now - reported_at_).count()};
  reported_at_ = now;
  note_peak(window, now);
  recent_.push_back(window);
  Window sum;
  for (const Window& w : recent_) {
    sum.tokens += w.tokens;
    sum.busy_us += w.busy_us;
    sum.seconds += w.seconds;
  }
  if (recent_.size() >= kRecentWindows || sum.seconds > kRecentSeconds) {
    recent_.pop_front();
  }
  protocol::WorkerMetrics metrics = totals_;
  metrics.tokens_per_second = ratio(static_cast<double>(sum.tokens), sum.seconds);
  metrics.busy_share = std::min(1.0, ratio(static_cast<double>(sum.busy_us) / 1e6, sum.seconds));
  metrics.peak_tokens_per_second = *std::ranges::max_element(peaks_);
  return metrics;
}

}  // namespace tessera::worker
