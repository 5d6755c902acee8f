#include "clients/cli/submit/progress_meter.hpp"

#include <algorithm>

namespace tessera::cli {
namespace {

constexpr std::chrono::milliseconds kAskEvery{1000};
constexpr std::chrono::milliseconds kAnswerWait{500};

}  // namespace

void ProgressMeter::on_read(const Chunk& chunk, bool skipped) {
  bytes_read_ = chunk.bytes_end;
  items_read_ = chunk.first_index + chunk.ids.size();
  if (skipped) {
    bytes_skipped_ = chunk.bytes_end;
    items_skipped_ = chunk.first_index + chunk.ids.size();
  }
}

void ProgressMeter::ask(client::Client& client, const std::string& job_id) {
  const auto now = std::chrono::steady_clock::now();
  if (first_ && now - asked_at_ < kAskEvery) {
    return;
  }
  asked_at_ = now;
  const auto status = client.status(job_id, kAnswerWait);
  if (status && !status->jobs.empty()) {
    now_ = status->jobs.front();
    if (!first_) {
      first_ = now_;
    }
  }
}

ProgressNumbers ProgressMeter::numbers(const Manifest& manifest, std::uint64_t tokens) const {
  ProgressNumbers numbers{.items = manifest.items,
                          .errors = manifest.errors,
                          .cache_hits = manifest.cache_hits + manifest.cache_joins,
                          .tokens = tokens};
  if (now_) {
    numbers.items = std::max(numbers.items, manifest.base_items + now_->items_done);
    numbers.errors = std::max(numbers.errors, now_->items_failed);
    numbers.cache_hits = std::max(numbers.cache_hits, now_->cache_hits + now_->cache_joins);
    numbers.tokens = std::max(tokens, now_->tokens_done - first_->tokens_done);
  }
  const std::uint64_t items_read = std::max<std::uint64_t>(items_read_, 1);
  if (input_bytes_ > 0) {
    // Of what has been read, the share of items that is done stands for its bytes.
    const auto total = static_cast<double>(input_bytes_);
    const auto done =
        static_cast<double>(std::min(numbers.items, items_read)) / static_cast<double>(items_read);
    numbers.fraction_start = static_cast<double>(bytes_skipped_) / total;
    numbers.fraction =
        std::max(numbers.fraction_start, done * static_cast<double>(bytes_read_) / total);
  }
  return numbers;
}

}  // namespace tessera::cli
