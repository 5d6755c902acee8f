#include "coordinator/core/jobs/job_table.hpp"

#include <utility>

#include "common/check.hpp"

namespace tessera::coordinator {

Job& JobTable::add(Job job) {
  const JobId id = job.id;
  const auto [entry, is_new] = jobs_.emplace(id, std::move(job));
  CHECK(is_new);
  Job& kept = entry->second;
  if (kept.end_durable) {
    ended_.push_back(id);
  } else {
    running_.emplace(id, &kept);
  }
  return kept;
}

void JobTable::remove(const JobId& id) {
  running_.erase(id);
  jobs_.erase(id);
}

void JobTable::retire(Job& job) {
  CHECK(running_.erase(job.id) == 1);
  ended_.push_back(job.id);
}

Job* JobTable::find(const JobId& id) {
  const auto found = jobs_.find(id);
  return found == jobs_.end() ? nullptr : &found->second;
}

const Job* JobTable::find(const JobId& id) const {
  const auto found = jobs_.find(id);
  return found == jobs_.end() ? nullptr : &found->second;
}

ChunkPlace JobTable::chunk(const JobId& id, std::uint32_t number) {
  Job* job = find(id);
  if (job == nullptr) {
    return {};
  }
  const auto found = job->chunks.find(number);
  return found == job->chunks.end() ? ChunkPlace{} : ChunkPlace{job, &found->second};
}

ChunkPlace JobTable::chunk_in(Chunk::Stage stage, const JobId& id, std::uint32_t number) {
  const ChunkPlace place = chunk(id, number);
  return place && place.chunk->stage == stage ? place : ChunkPlace{};
}

const Job* JobTable::oldest_ended() const {
  return ended_.empty() ? nullptr : &jobs_.at(ended_.front());
}

std::vector<protocol::JobProgress> JobTable::progress(std::size_t count_max) const {
  std::vector<protocol::JobProgress> list;
  for (const bool ended : {false, true}) {
    for (const auto& [id, job] : jobs_) {
      if (job.created && job.ended() == ended && list.size() < count_max) {
        list.push_back(job.progress());
      }
    }
  }
  return list;
}

}  // namespace tessera::coordinator
