#include "coordinator/core/jobs/job.hpp"

#include <algorithm>

#include "coordinator/core/items/resolved_spec.hpp"

namespace tessera::coordinator {
namespace {

using Stage = Chunk::Stage;

// Which counter a stage is counted in; nullptr for none.
std::uint32_t* counter_of(Job& job, Stage stage) {
  switch (stage) {
    case Stage::kWaiting:
      return &job.waiting;
    case Stage::kReady:
      return &job.ready;
    case Stage::kSent:
    case Stage::kFetchingResult:
    case Stage::kFetchResultAgain:
      return &job.sent;
    case Stage::kAcking:
    case Stage::kAckAgain:
      return &job.acking;
    default:
      return nullptr;
  }
}

bool is_active(Stage stage) {
  return stage == Stage::kFetchingItems || stage == Stage::kFetchItemsAgain ||
         stage == Stage::kActive;
}

}  // namespace

void Job::move(Chunk& chunk, Stage stage) {
  if (std::uint32_t* from = counter_of(*this, chunk.stage)) {
    --*from;
  }
  if (std::uint32_t* to = counter_of(*this, stage)) {
    ++*to;
  }
  if (is_active(chunk.stage) != is_active(stage)) {
    active_items += is_active(stage) ? chunk.items_count : -std::uint64_t{chunk.items_count};
  }
  chunk.stage = stage;
}

RangeSet Job::acknowledged() const {
  RangeSet set = delivered;
  for (const auto& [number, chunk] : chunks) {
    if (chunk.stage == Chunk::Stage::kAcking || chunk.stage == Chunk::Stage::kAckAgain) {
      set.insert(number);
    }
  }
  return set;
}

protocol::JobProgress Job::progress() const {
  return {.job_id = id,
          .job_key = key,
          .model = spec.model,
          .state = state,
          .chunks_accepted = accepted.size(),
          .chunks_done = done.size(),
          .chunks_delivered = delivered.size(),
          .chunks_total = closed ? chunks_total : 0,
          .items_accepted = items_accepted,
          .items_done = items_done,
          .items_failed = items_failed,
          .tokens_done = tokens_done,
          .cache_hits = cache_hits,
          .cache_joins = cache_joins,
          .cache_misses = cache_misses};
}

Result<Job> Job::restore(const ledger::StoredJob& stored, std::span<const ServedModel> models) {
  auto spec = ledger::decode_spec(stored.spec);
  if (!spec) {
    return spec.error();
  }
  auto resolved = resolve(spec->embed, models);
  if (!resolved) {
    return resolved.error();
  }
  Job job{.id = stored.job,
          .key = stored.job_key,
          .tenant = stored.tenant,
          .spec = std::move(spec->embed),
          .resolved = std::make_shared<const ResolvedSpec>(std::move(*resolved)),
          .priority = stored.priority,
          .chunk_items = spec->chunk_items,
          .state = stored.state,
          .fingerprint = stored.fingerprint,
          .created = true,
          .closed = stored.closed,
          .chunks_total = stored.chunks_total,
          .peer = {},
          .accepted = RangeSet::from_bitmap(stored.accepted),
          .done = RangeSet::from_bitmap(stored.done),
          .delivered = RangeSet::from_bitmap(stored.delivered),
          .chunks = {},
          .items_accepted = stored.items_accepted,
          .items_done = stored.items_done,
          .items_failed = stored.items_failed,
          .tokens_done = stored.tokens_done,
          .cache_hits = stored.cache_hits,
          .cache_joins = stored.cache_joins,
          .cache_misses = stored.cache_misses};
  job.end_durable = job.ended();
  if (job.ended()) {
    return job;
  }
  job.owed_items = job.items_accepted - std::min(job.items_accepted, job.items_done);
  for (const std::uint32_t number : job.accepted.to_values()) {
    if (!job.delivered.contains(number)) {
      Chunk& chunk = job.chunks[number];
      job.move(chunk, job.done.contains(number) ? Stage::kReady : Stage::kWaiting);
    }
  }
  return job;
}

}  // namespace tessera::coordinator
