#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "clients/gateway/batches/batch_lease.hpp"
#include "clients/gateway/batches/batch_pass.hpp"
#include "clients/gateway/batches/lines/input_check.hpp"
#include "clients/gateway/files/file_store.hpp"

namespace tessera::gateway {

// What a run tells of itself, for metrics; called by the run's thread.
struct BatchWatcher {
  std::function<void(BatchStatus)> on_status;
  std::function<void(std::uint64_t completed, std::uint64_t failed)> on_lines;  // More of them.
};

struct BatchRunOptions {
  bool accept_token_ids = false;
  std::size_t items_max = 2048;
};

// The id of a file that a batch makes: the same each time that it is made.
std::string batch_file_id(const std::string& batch_id, std::string_view what);

// One holder's work on a batch, from where the work folder says that the one before ended. One
// thread, and a reading one in each pass.
class BatchRun {
 public:
  BatchRun(client::Client& client, FileStore& files, BatchLease& lease,
           const BatchRunOptions& options, BatchWatcher watcher, const std::atomic<bool>& stop);

  // Ends when the batch has ended, the lease is lost or `stop` is set. The error: what stood in the
  // way of going on now, such as a full disk; the batch is as it was.
  Result<void> run();

 private:
  enum class Why : std::uint8_t { kGoOn, kStop, kCancelled, kExpired };

  Why why_not() const;
  bool update(const std::function<void(BatchRecord&)>& change);
  Result<void> run_in(const std::filesystem::path& folder);
  Result<bool> open_input();
  bool refresh();
  Result<bool> check();
  Result<void> run_lines();
  Result<bool> run_pass();
  protocol::OpenJob job_of_pass() const;
  void cancel_job();
  void tell_progress(bool always);
  void tell_lines();  // To the watcher: what came since.
  void copy_counts(BatchRecord& record) const;

  // In batch_end.cpp:
  // Ends it with what is done: joins the outputs, makes files of them, changes the record.
  Result<void> finish(BatchStatus status);
  Result<void> end(const std::function<void(BatchRecord&)>& change,
                   const std::filesystem::path& more_errors);
  Result<void> fail(const std::string& code, const std::string& message);
  Result<std::string> make_file(BatchOutput::Kind kind, const std::filesystem::path& more);
  // An error line for each line that was not run; the file of them.
  std::filesystem::path write_unrun(std::uint64_t& count);

  client::Client& client_;
  FileStore& files_;
  BatchLease& lease_;
  const BatchRunOptions options_;
  const BatchWatcher watcher_;
  const std::atomic<bool>& stop_;
  const std::string id_;
  const LineNames names_;
  TokenPace pace_;
  std::filesystem::path folder_;
  std::unique_ptr<InputFile> input_;
  std::unique_ptr<BatchOutput> output_;
  std::optional<BatchProgress> progress_;
  bool saved_ = false;  // Whether the progress on the disk is ours.
  std::uint64_t told_completed_ = 0;
  std::uint64_t told_failed_ = 0;
  BatchLease::Clock::time_point told_at_;
};

}  // namespace tessera::gateway
