#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "clients/cpp/client.hpp"
#include "clients/gateway/batches/batch_run.hpp"
#include "clients/gateway/files/file_store.hpp"

namespace tessera::gateway {

class GatewayMetrics;

struct BatchRunnerOptions {
  std::string coordinator;
  int threads = 2;  // Batches at a time.
  std::chrono::milliseconds lease{15'000};
  BatchRunOptions run;
};

// Runs batches, a few at a time: looks about once a second, and when woken, for open ones that
// nobody works on, and takes the oldest. Any gateway with the same folder of files may take any.
// Functions may be called from any thread.
class BatchRunner {
 public:
  BatchRunner(BatchRunnerOptions options, FileStore& files, GatewayMetrics& metrics);
  ~BatchRunner();  // Waits until its batches have been left in a state to go on from.
  BatchRunner(const BatchRunner&) = delete;
  BatchRunner& operator=(const BatchRunner&) = delete;

  void wake();  // There is a new batch.
  void stop();  // Leaves the batches; returns at once.

 private:
  using Clock = std::chrono::steady_clock;

  void work();
  bool run_one();
  std::vector<std::string> free_batches();  // Oldest first.
  bool reserve(const std::string& id);
  void run(BatchLease& lease);
  void clean_up();
  void delete_old();
  void remove_leftovers();

  const BatchRunnerOptions options_;
  FileStore& files_;
  GatewayMetrics& metrics_;
  client::Client client_;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable woken_;
  std::uint64_t wakes_ = 0;
  std::set<std::string> own_;                         // That a thread of ours is at.
  std::map<std::string, Clock::time_point> put_off_;  // After what stood in the way.
  Clock::time_point delete_at_;
  std::vector<std::jthread> threads_;
};

}  // namespace tessera::gateway
