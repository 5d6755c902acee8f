#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "clients/cpp/client.hpp"
#include "clients/gateway/batches/batch_output.hpp"
#include "clients/gateway/batches/lines/line_groups.hpp"
#include "clients/gateway/batches/lines/line_reader.hpp"
#include "clients/gateway/batches/lines/result_lines.hpp"
#include "clients/gateway/batches/token_pace.hpp"

namespace tessera::gateway {

// What a pass works on; the owner keeps it until the pass has ended.
struct PassContext {
  client::Client& client;
  const InputFile& input;
  const std::filesystem::path& folder;
  const LineNames& names;
  BatchProgress& progress;
  BatchOutput& output;
  TokenPace& pace;
  protocol::OpenJob open;  // Key, tenant and spec of the job.
  std::size_t items_max = 2048;
  std::function<bool()> go_on;        // Asked a few times a second.
  std::function<void()> on_progress;  // After each step that is safe.
  // Reads the progress again, once the job is ours; false: it is not in this pass any more.
  std::function<bool()> refresh;
};

// Embeds the lines of one spec: a job, whose chunks are groups of whole lines. Two threads. The
// reading one reads the input, makes the chunks and submits those that are not done, within the
// job's window. The calling thread takes results, writes their lines, and for all that have come
// together: makes the outputs safe, saves the progress, acknowledges - in this order, so that the
// ledger gives up nothing that is not safe here. Memory holds a window of chunks.
class BatchPass {
 public:
  explicit BatchPass(PassContext context) : it_(std::move(context)) {}
  ~BatchPass();

  // True when all lines are done, false when go_on said no; the error that ended the job:
  // kCancelled when somebody has cancelled it. Throws FatalError when the disk fails.
  Result<bool> run();

 private:
  struct Group {
    std::vector<PlacedLine> lines;
    protocol::ItemBlock items;
    double tokens_guessed = 0;
  };
  Result<void> open_job();

  void read_input();  // The reading thread.
  void read_lines();
  bool submit(std::uint32_t chunk, Group group);
  bool wait_for_pace(double tokens);
  void close_job(std::uint32_t chunks);

  Result<bool> write_until_end();
  Result<void> take_results();
  bool write_ready();
  void write_group(const Group& group, const protocol::ResultBlock& results);
  bool all_done();
  void leave_job();

  PassContext it_;
  std::optional<client::Job> job_;
  RangeSet done_before_;
  std::atomic<bool> stop_ = false;
  std::map<std::uint32_t, protocol::ResultBlock> results_;  // Not written, not acknowledged.

  std::mutex mutex_;                     // Guards what follows, and the pace.
  std::map<std::uint32_t, Group> read_;  // Submitted, not written. Without items.
  std::optional<std::uint32_t> chunks_;  // How many there are, once all are read.
  std::optional<std::string> read_error_;

  std::jthread reader_;
};

}  // namespace tessera::gateway
