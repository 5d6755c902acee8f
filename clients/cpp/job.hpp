#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "common/range_set.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::client {

class Connection;
class JobState;

// A job that the coordinator knows. Functions may be called from any thread; the usual form is one
// thread that submits and one that takes results. Results come in any order, each chunk once per
// Job object; what was not acknowledged comes again after the next open_job with the same key. The
// coordinator sends only some results ahead of their acknowledgements, so whoever wants them in
// order must be able to make later ones safe before earlier ones.
//
//   job.submit(0, items); ... job.close(chunks);
//   while (auto result = job.next(...)) { save(*result); job.acknowledge(result->chunk); }
class Job {
 public:
  Job(std::shared_ptr<Connection> connection, std::shared_ptr<JobState> state);
  ~Job();  // Does not cancel: the coordinator keeps the job for whoever opens its key again.
  Job(Job&&) noexcept;
  Job& operator=(Job&&) noexcept;

  const std::string& id() const { return id_; }
  // Chunks that the ledger held, and results that were acknowledged, when the job was opened.
  const RangeSet& accepted_before() const { return accepted_before_; }
  const RangeSet& delivered_before() const { return delivered_before_; }

  // Whether somebody has cancelled the job; then submit and next fail.
  bool cancelled() const;

  // Hands one chunk over; sent again by itself until the coordinator has it in its ledger. Waits
  // while the window is full: kResourceExhausted when it still is after `timeout`. Of a chunk that
  // the ledger has already only a digest is sent, and its answer waited for: ok when it is of the
  // same items, else kConflict, for submit and next alike. `items` is left alone unless the result
  // is ok. Any other error is the job's end: cancelled, refused, or its ledger lost.
  Result<void> submit(std::uint32_t chunk, protocol::ItemBlock& items,
                      std::chrono::milliseconds timeout);

  // Says that there are no chunks but 0..chunks-1.
  Result<void> close(std::uint32_t chunks, std::chrono::milliseconds timeout);

  // The next result, or nothing after `timeout`, or the job's end as an error.
  Result<std::optional<protocol::ChunkResult>> next(std::chrono::milliseconds timeout);

  // The caller has the result of `chunk` safe; the coordinator may forget it.
  void acknowledge(std::uint32_t chunk);

  // Waits until the coordinator has seen all acknowledgements of a closed job; false when not yet.
  bool wait_done(std::chrono::milliseconds timeout);

  Result<protocol::JobProgress> progress(std::chrono::milliseconds timeout);
  Result<protocol::JobProgress> cancel(std::chrono::milliseconds timeout);

 private:
  std::shared_ptr<Connection> connection_;
  std::shared_ptr<JobState> state_;
  std::string id_;
  RangeSet accepted_before_;
  RangeSet delivered_before_;
};

}  // namespace tessera::client
