#pragma once

#include <atomic>
#include <chrono>
#include <optional>

#include "clients/cli/submit/chunker.hpp"
#include "clients/cli/submit/manifest.hpp"
#include "clients/cli/submit/progress.hpp"
#include "clients/cpp/client.hpp"

namespace tessera::cli {

// How far a job is: the coordinator counts what is embedded, which is ahead of what is written,
// since chunks of mixed lengths all end late. The reading thread calls on_read, the writing thread
// the rest.
class ProgressMeter {
 public:
  // `input_bytes` 0: the input's size is not known.
  explicit ProgressMeter(std::uint64_t input_bytes) : input_bytes_(input_bytes) {}

  // `skipped`: an earlier run wrote the chunk.
  void on_read(const Chunk& chunk, bool skipped);

  // Asks the coordinator, at most once a second; waits for its answer for half a second at most.
  void ask(client::Client& client, const std::string& job_id);

  // `tokens` of this run have been written.
  ProgressNumbers numbers(const Manifest& manifest, std::uint64_t tokens) const;

 private:
  std::uint64_t input_bytes_;
  std::atomic<std::uint64_t> bytes_skipped_{0};
  std::atomic<std::uint64_t> items_skipped_{0};
  std::atomic<std::uint64_t> bytes_read_{0};  // With those that were skipped.
  std::atomic<std::uint64_t> items_read_{0};
  std::chrono::steady_clock::time_point asked_at_{};
  std::optional<protocol::JobProgress> first_;  // What the job had done when this run began.
  std::optional<protocol::JobProgress> now_;
};

}  // namespace tessera::cli
