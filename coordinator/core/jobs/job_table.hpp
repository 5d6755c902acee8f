#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "coordinator/core/jobs/job.hpp"

namespace tessera::coordinator {

// One chunk of one job, as the table has it; both null when there is none.
struct ChunkPlace {
  Job* job = nullptr;
  Chunk* chunk = nullptr;
  explicit operator bool() const { return chunk != nullptr; }
};

// All jobs that the coordinator knows. A job runs until its end is in the ledger, and is then kept
// for a while among the ended ones. References stay good until remove().
class JobTable {
 public:
  // Running, unless its end is durable already. Its id must be new.
  Job& add(Job job);
  void remove(const JobId& id);
  // The end of a running job is in the ledger.
  void retire(Job& job);

  Job* find(const JobId& id);
  const Job* find(const JobId& id) const;
  ChunkPlace chunk(const JobId& id, std::uint32_t number);
  // None, too, for a chunk in another stage: what was asked for it is over.
  ChunkPlace chunk_in(Chunk::Stage stage, const JobId& id, std::uint32_t number);

  const std::map<JobId, Job*>& running() const { return running_; }
  std::size_t size() const { return jobs_.size(); }
  std::size_t ended() const { return ended_.size(); }
  // The job that ended first, or null. pass_over_oldest() lets the next one be it until remove() or
  // put_back().
  const Job* oldest_ended() const;
  void pass_over_oldest() { ended_.pop_front(); }
  void put_back(const JobId& id) { ended_.push_front(id); }

  // Open jobs first, at most `count_max`.
  std::vector<protocol::JobProgress> progress(std::size_t count_max) const;

 private:
  std::map<JobId, Job> jobs_;
  std::map<JobId, Job*> running_;  // Those whose end is not in the ledger.
  std::deque<JobId> ended_;        // The others, oldest first.
};

}  // namespace tessera::coordinator
