#include <algorithm>
#include <limits>

#include "common/check.hpp"
#include "common/log.hpp"
#include "coordinator/core/job_desk.hpp"

// From a durable chunk to a delivered result.
namespace tessera::coordinator {
namespace {

using Stage = Chunk::Stage;
using ledger::Status;

constexpr std::uint64_t kPendingBatches = 4;  // Per worker: two in flight, two to choose from.

}  // namespace

void JobDesk::drop_contents(Chunk& chunk) {
  resident_bytes_ -= chunk.resident_bytes();
  chunk.items.reset();
  chunk.result.reset();
}

// --- into work -----------------------------------------------------------------------------------

// The job with the least in work for its weight, among those whose model has room.
Job* JobDesk::next_to_activate() {
  Job* best = nullptr;
  double best_share = 0;
  for (auto& [id, job] : jobs_) {
    const ModelId model = job.resolved->model;
    if (job.waiting == 0 || job.ended() || !flow_.can_start(model) ||
        (!job.fingerprint.empty() && job.fingerprint != dispatcher_.fingerprint(model))) {
      continue;
    }
    const std::uint64_t room = std::max(
        limits_.pending_tokens_min, kPendingBatches * dispatcher_.workers().batch_tokens(model));
    const std::uint64_t pending = flow_.pending_tokens(model);
    // A job with nothing in work is let in beyond the bound, so that all can share.
    if (pending >= 2 * room || (pending >= room && job.active_items > 0)) {
      continue;
    }
    const double share = static_cast<double>(job.active_items) / job.priority;
    if (best == nullptr || share < best_share) {
      best = &job;
      best_share = share;
    }
  }
  return best;
}

std::uint32_t JobDesk::pump(Micros now, Actions& actions) {
  std::uint32_t started = 0;
  backlog_ = false;
  while (!stopping_) {
    Job* job = next_to_activate();
    if (job == nullptr) {
      break;
    }
    if (started >= limits_.items_per_step_max) {
      backlog_ = true;
      break;
    }
    const auto waiting = std::ranges::find_if(
        job->chunks, [](const auto& entry) { return entry.second.stage == Stage::kWaiting; });
    CHECK(waiting != job->chunks.end());
    pin(*job, actions);
    if (waiting->second.items) {
      started += waiting->second.items_count;
      activate(*job, waiting->first, waiting->second, now, actions);
    } else {
      fetch_items(*job, waiting->first, waiting->second, actions);
    }
  }
  for (auto& [id, job] : jobs_) {
    if (job.ready > 0 && !job.peer.empty()) {
      send_results(job, now, actions);
    }
  }
  return started;
}

void JobDesk::pin(Job& job, Actions& actions) {
  if (!job.fingerprint.empty()) {
    return;
  }
  job.fingerprint = dispatcher_.fingerprint(job.resolved->model);
  run(
      ledger::PinFingerprint{.job = job.id, .fingerprint = job.fingerprint},
      [this, id = job.id](const ledger::Reply& reply, Micros, Actions&) {
        if (Job* pinned = find_job(id)) {
          pinned->fingerprint_durable = reply.status == Status::kDone;
        }
      },
      actions);
}

void JobDesk::activate(Job& job, std::uint32_t number, Chunk& chunk, Micros now, Actions& actions) {
  Unit unit{.spec = job.resolved,
            .lane = protocol::Lane::kBulk,
            .stream = {.tenant = job.tenant, .job = job.id},
            .weight = static_cast<double>(job.priority),
            .items = {}};
  resident_bytes_ -= chunk.resident_bytes();
  unit.items = std::move(*chunk.items);
  chunk.items.reset();
  job.move(chunk, Stage::kActive);
  chunk.unit = flow_.start(std::move(unit), now, actions);
  units_.emplace(chunk.unit, std::pair(job.id, number));
}

void JobDesk::fetch_items(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions) {
  job.move(chunk, Stage::kFetchingItems);
  run(
      ledger::FetchChunk{.job = job.id, .chunk = number},
      [this, id = job.id, number](const ledger::Reply& reply, Micros now, Actions& out) {
        items_fetched(id, number, reply, now, out);
      },
      actions);
}

void JobDesk::items_fetched(const JobId& id, std::uint32_t number, const ledger::Reply& reply,
                            Micros now, Actions& actions) {
  Job* job = find_job(id);
  Chunk* chunk = find_chunk(id, number);
  if (chunk == nullptr || chunk->stage != Stage::kFetchingItems) {
    return;
  }
  job->move(*chunk, Stage::kWaiting);
  if (reply.status == Status::kFailed) {
    return;  // Tried again by the next pump.
  }
  auto items = ledger::read_chunk(reply.content);
  if (!items) {
    log::error("job {}: chunk {} is not readable in the ledger: {}", id, number,
               items.error().message);
    drop_contents(*chunk);
    job->move(*chunk, Stage::kFetchingItems);  // Held there: nothing can be answered for it.
    return;
  }
  chunk->items_count = static_cast<std::uint32_t>(items->items.sizes.size());
  chunk->items = std::move(items->items);
  resident_bytes_ += chunk->resident_bytes();
  activate(*job, number, *chunk, now, actions);
}

// --- results -------------------------------------------------------------------------------------

bool JobDesk::on_finished(FinishedUnit& finished, Actions& actions) {
  const auto found = units_.find(finished.id);
  if (found == units_.end()) {
    return false;
  }
  const auto [id, number] = std::move(found->second);
  units_.erase(found);
  Job* job = find_job(id);
  Chunk* chunk = find_chunk(id, number);
  CHECK(job != nullptr && chunk != nullptr && chunk->stage == Stage::kActive);
  chunk->counts = {.job = id,
                   .chunk = number,
                   .items = chunk->items_count,
                   .items_failed = finished.items_failed,
                   .tokens = finished.tokens,
                   .cache_hits = finished.results.cache_hits,
                   .cache_joins = finished.results.cache_joins,
                   .cache_misses = finished.results.cache_misses,
                   .content = {}};
  chunk->result = {.job_id = id, .chunk = number, .results = std::move(finished.results)};
  resident_bytes_ += chunk->resident_bytes();
  store(*job, number, actions);
  return true;
}

void JobDesk::store(Job& job, std::uint32_t number, Actions& actions) {
  Chunk& chunk = job.chunks.at(number);
  job.move(chunk, Stage::kStoring);
  ledger::StoreResult operation = chunk.counts;
  operation.content = ledger::journal_result(*chunk.result);
  run(
      std::move(operation),
      [this, id = job.id, number](const ledger::Reply& reply, Micros, Actions&) {
        Job* stored_job = find_job(id);
        Chunk* stored = find_chunk(id, number);
        if (stored == nullptr || stored->stage != Stage::kStoring) {
          return;
        }
        if (reply.status == Status::kFailed) {
          stored_job->move(*stored, Stage::kStoreAgain);
          return;
        }
        stored_job->done.insert(number);
        stored_job->items_done += stored->counts.items;
        stored_job->items_failed += stored->counts.items_failed;
        stored_job->tokens_done += stored->counts.tokens;
        stored_job->cache_hits += stored->counts.cache_hits;
        stored_job->cache_joins += stored->counts.cache_joins;
        stored_job->cache_misses += stored->counts.cache_misses;
        stored_job->move(*stored, Stage::kReady);
        if (stored_job->peer.empty() || resident_bytes_ > limits_.resident_bytes_max) {
          drop_contents(*stored);  // The ledger has it.
        }
      },
      actions);
}

void JobDesk::send_results(Job& job, Micros now, Actions& actions) {
  for (auto& [number, chunk] : job.chunks) {
    if (job.sent >= limits_.unacknowledged_results_max || job.ready == 0) {
      return;
    }
    if (chunk.stage != Stage::kReady) {
      continue;
    }
    if (!chunk.result) {
      fetch_result(job, number, chunk, actions);
      continue;
    }
    resident_bytes_ -= chunk.resident_bytes();
    protocol::ChunkResult result = std::move(*chunk.result);
    chunk.result.reset();
    send_result(job, chunk, std::move(result), now, actions);
  }
}

void JobDesk::send_result(Job& job, Chunk& chunk, protocol::ChunkResult result, Micros now,
                          Actions& actions) {
  job.move(chunk, Stage::kSent);
  chunk.sent_at = now;
  actions.push_back(SendClient{job.peer, std::move(result)});
}

void JobDesk::fetch_result(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions) {
  job.move(chunk, Stage::kFetchingResult);
  run(
      ledger::FetchResult{.job = job.id, .chunk = number},
      [this, id = job.id, number](const ledger::Reply& reply, Micros now, Actions& out) {
        Job* fetched_job = find_job(id);
        Chunk* fetched = find_chunk(id, number);
        if (fetched == nullptr || fetched->stage != Stage::kFetchingResult) {
          return;
        }
        auto result = reply.status == Status::kDone
                          ? ledger::read_result(reply.content)
                          : Result<protocol::ChunkResult>(Error{ErrorCode::kUnavailable, ""});
        if (!result) {
          log::error("job {}: the result of chunk {} was not readable", id, number);
          fetched_job->move(*fetched, Stage::kSent);  // Read again when it is due to be resent.
          fetched->sent_at = now;
          return;
        }
        fetched_job->move(*fetched, Stage::kReady);
        if (!fetched_job->peer.empty()) {
          send_result(*fetched_job, *fetched, std::move(*result), now, out);
        }
      },
      actions);
}

void JobDesk::on_ack(const protocol::ResultAck& ack, Actions& actions) {
  Job* job = find_job(ack.job_id);
  Chunk* chunk = find_chunk(ack.job_id, ack.chunk);
  if (chunk == nullptr || !job->done.contains(ack.chunk) || chunk->stage == Stage::kAcking) {
    return;
  }
  acknowledge(*job, ack.chunk, actions);
}

void JobDesk::acknowledge(Job& job, std::uint32_t number, Actions& actions) {
  Chunk& chunk = job.chunks.at(number);
  drop_contents(chunk);
  job.move(chunk, Stage::kAcking);
  run(
      ledger::AckResult{.job = job.id, .chunk = number},
      [this, id = job.id, number](const ledger::Reply& reply, Micros, Actions& out) {
        Job* acked_job = find_job(id);
        Chunk* acked = find_chunk(id, number);
        if (acked == nullptr || acked->stage != Stage::kAcking) {
          return;
        }
        if (reply.status == Status::kFailed) {
          acked_job->move(*acked, Stage::kAckAgain);
          return;
        }
        acked_job->delivered.insert(number);
        acked_job->chunks.erase(number);
        --acked_job->acking;
        if (acked_job->all_delivered() && !acked_job->ended()) {
          end(*acked_job, protocol::JobState::kDone, out);
        }
      },
      actions);
}

// --- the end -------------------------------------------------------------------------------------

void JobDesk::end(Job& job, protocol::JobState state, Actions& actions) {
  job.state = state;
  for (auto& [number, chunk] : job.chunks) {
    job.end_drops.push_back(number);
    drop_contents(chunk);
    if (chunk.stage == Stage::kActive) {
      flow_.abandon(chunk.unit);
      units_.erase(chunk.unit);
    }
  }
  job.chunks.clear();
  job.waiting = job.ready = job.sent = job.acking = 0;
  job.active_items = 0;
  run_end(job, actions);
}

void JobDesk::run_end(Job& job, Actions& actions) {
  job.end_refused = false;
  run(
      ledger::EndJob{.job = job.id, .state = job.state, .chunks = job.end_drops},
      [this, id = job.id](const ledger::Reply& reply, Micros now, Actions& out) {
        if (Job* job_found = find_job(id)) {
          ended(*job_found, reply, now, out);
        }
      },
      actions);
}

void JobDesk::ended(Job& job, const ledger::Reply& reply, Micros now, Actions& actions) {
  if (reply.status == Status::kFailed) {
    job.end_refused = true;
    return;
  }
  job.end_durable = true;
  job.ended_at = now;
  job.end_drops.clear();
  if (!job.peer.empty()) {
    job.end_waiters.emplace_back(job.peer, 0);
  }
  for (const auto& [peer, request_id] : std::exchange(job.end_waiters, {})) {
    actions.push_back(SendClient{
        peer, protocol::JobUpdate{.request_id = request_id, .progress = job.progress()}});
  }
}

void JobDesk::tick_job(Job& job, Micros now, Actions& actions) {
  if (job.ended()) {
    if (job.end_refused) {
      run_end(job, actions);
    }
    return;
  }
  if (job.all_delivered()) {
    end(job, protocol::JobState::kDone, actions);  // Restored just before its end.
    return;
  }
  for (auto& [number, chunk] : job.chunks) {
    if (chunk.stage == Stage::kStoreAgain) {
      store(job, number, actions);
    } else if (chunk.stage == Stage::kAckAgain) {
      acknowledge(job, number, actions);
    } else if (chunk.stage == Stage::kSent && now - chunk.sent_at >= limits_.resend_us) {
      job.move(chunk, Stage::kReady);
    }
  }
}

void JobDesk::tick(Micros now, Actions& actions) {
  if (!ledger_up_) {
    return;
  }
  for (auto& [id, job] : jobs_) {
    if (job.created) {
      tick_job(job, now, actions);
    }
  }
  forget_old(now, actions);
}

void JobDesk::forget_old(Micros now, Actions& actions) {
  const bool too_many = jobs_.size() > limits_.kept_jobs_max;
  auto oldest = jobs_.end();
  for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
    if (it->second.end_durable &&
        (oldest == jobs_.end() || it->second.ended_at < oldest->second.ended_at)) {
      oldest = it;
    }
  }
  if (oldest == jobs_.end() ||
      (!too_many && now - oldest->second.ended_at < limits_.keep_ended_us)) {
    return;
  }
  run(
      ledger::ForgetJob{
          .job = oldest->second.id, .job_key = oldest->second.key, .tenant = oldest->second.tenant},
      [](const ledger::Reply&, Micros, Actions&) {}, actions);
  jobs_.erase(oldest);
}

}  // namespace tessera::coordinator
