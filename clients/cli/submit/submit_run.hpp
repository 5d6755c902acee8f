#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "clients/cli/command.hpp"
#include "clients/cli/dry_run.hpp"
#include "clients/cli/io/readers.hpp"
#include "clients/cli/submit/chunker.hpp"
#include "clients/cli/submit/job_folder.hpp"
#include "clients/cli/submit/job_output.hpp"
#include "clients/cli/submit/progress_meter.hpp"

namespace tessera {
class StopSignal;
}

namespace tessera::cli {

struct SubmitOptions {
  ConnectOptions connect;
  protocol::EmbedSpec spec;
  std::vector<std::string> inputs;
  ReadOptions read;
  OutputOptions output;
  DryRunOptions dry_run;
  std::size_t chunk_items = 256;
  std::uint32_t priority = 1;
  bool json = false;
  bool quiet = false;
};

// One run of `tessera submit`: goes on where the folder's manifest says that the last run ended.
// Two threads. The reading thread cuts the input into chunks, compares them with the log of earlier
// runs and submits what is not written yet, within the job's window. The calling thread takes
// results, writes them in input order, and for each group of chunks: syncs the files, saves the
// manifest, acknowledges - in this order, so that nothing is given up that is not safe here. Memory
// holds a window of chunks, whatever the size of the input.
class SubmitRun {
 public:
  SubmitRun(SubmitOptions options, const StopSignal& stop);
  ~SubmitRun();

  int run();

 private:
  bool open_input();  // False when a stop came first.
  void begin();
  void compare_finished();
  void open_job();
  bool job_matches(const client::Job& job);
  // False when there is nothing to compare. Throws FatalError when the models differ.
  bool check_fingerprint(const std::vector<protocol::ModelInfo>& models);

  void read_input();          // The reading thread.
  bool submit(Chunk& chunk);  // False when the run is to end.
  void end_reading(std::uint64_t chunks);
  bool close_job(std::uint64_t chunks);

  void write_until_end();
  void take_results();
  void write_ready();
  void save_ahead();
  bool take_chunk(std::uint64_t number, Chunk& chunk);
  bool all_written();
  ProgressNumbers numbers() const;
  int report() const;

  SubmitOptions options_;
  const StopSignal& stop_signal_;
  JobFolder folder_;
  Manifest& manifest_;            // The folder's; changed by the writing thread only.
  std::uint64_t written_before_;  // Chunks of earlier runs.
  bool was_finished_;
  ProgressMeter meter_;
  std::atomic<bool> stop_{false};
  bool interrupted_ = false;

  std::unique_ptr<RecordReader> input_;  // The reading thread's, once it runs.
  std::optional<client::Client> client_;
  std::optional<client::Job> job_;
  std::optional<JobOutput> output_;
  std::map<std::uint64_t, protocol::ResultBlock> results_;  // Not written, not acknowledged.
  std::optional<Progress> progress_;

  std::mutex mutex_;                     // Guards the three below.
  std::map<std::uint64_t, Chunk> read_;  // Submitted, not written. Without payload.
  std::optional<std::uint64_t> total_chunks_;
  std::optional<std::string> read_error_;

  std::jthread reader_;
};

}  // namespace tessera::cli
