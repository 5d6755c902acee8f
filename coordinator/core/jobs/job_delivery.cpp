#include <algorithm>
#include <utility>

#include "common/check.hpp"
#include "common/log.hpp"
#include "coordinator/core/jobs/job_desk.hpp"

// From a durable chunk to a delivered result.
namespace tessera::coordinator {
namespace {

using Stage = Chunk::Stage;
using ledger::Status;

constexpr std::uint64_t kPendingBatches = 4;  // Per worker: two in flight, two to choose from.
constexpr std::size_t kResultBytesGuess = 1U << 20;  // 256 vectors of 1024 floats.

// About what a result takes in a message queue.
std::size_t bytes_of(const protocol::ChunkResult& result) {
  constexpr std::size_t kPerItem = 16;
  constexpr std::size_t kPerError = 200;
  return result.results.payload.size() + kPerItem * result.results.codes.size() +
         kPerError * result.results.errors.size();
}

}  // namespace

void JobDesk::drop_contents(Chunk& chunk) {
  resident_bytes_ -= chunk.resident_bytes();
  chunk.items.reset();
  chunk.result.reset();
}

// into work

// The job with the least in work for its weight, among those whose model has room.
Job* JobDesk::next_to_activate() {
  Job* best = nullptr;
  double best_share = 0;
  for (const auto& [id, candidate] : jobs_.running()) {
    Job& job = *candidate;
    const ModelId model = job.resolved->model;
    if (job.waiting == 0 || job.ended() || !flow_.can_start(model) ||
        !dispatcher_.identity(model).continues(job.fingerprint)) {
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
  while (!stopping_ && !calls_.busy()) {
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
    job->fingerprint = dispatcher_.fingerprint(job->resolved->model);
    if (waiting->second.items) {
      started += waiting->second.items_count;
      activate(*job, waiting->first, waiting->second, now, actions);
    } else {
      fetch_items(*job, waiting->first, waiting->second, actions);
    }
  }
  for (const auto& [id, job] : jobs_.running()) {
    if (job->ready > 0 && !job->peer.empty()) {
      send_results(*job, actions);
    }
  }
  return started;
}

void JobDesk::activate(Job& job, std::uint32_t number, Chunk& chunk, Micros now, Actions& actions) {
  Unit unit{.spec = job.resolved,
            .lane = protocol::Lane::kBulk,
            .stream = {.tenant = job.tenant, .job = job.id},
            .weight = static_cast<double>(job.priority),
            .items = {},
            .trace = job.trace};
  resident_bytes_ -= chunk.resident_bytes();
  unit.items = std::move(*chunk.items);
  chunk.items.reset();
  job.move(chunk, Stage::kActive);
  chunk.unit = flow_.start(std::move(unit), now, actions);
  units_.emplace(chunk.unit, std::pair(job.id, number));
}

void JobDesk::fetch_items(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions) {
  job.move(chunk, Stage::kFetchingItems);
  calls_.run(
      ledger::FetchChunk{.job = job.id, .chunk = number},
      [this, id = job.id, number](const ledger::Reply& reply, Micros now, Actions& out) {
        items_fetched(id, number, reply, now, out);
      },
      actions);
}

void JobDesk::items_fetched(const JobId& id, std::uint32_t number, const ledger::Reply& reply,
                            Micros now, Actions& actions) {
  const auto [job, chunk] = jobs_.chunk_in(Stage::kFetchingItems, id, number);
  if (chunk == nullptr) {
    return;
  }
  auto items = reply.status == Status::kDone
                   ? ledger::read_chunk(reply.content)
                   : Result<protocol::SubmitChunk>(Error{ErrorCode::kUnavailable, reply.message});
  if (!items) {
    log::error("job {}: chunk {} is not readable in the ledger: {}", id, number,
               items.error().message);
    job->move(*chunk, Stage::kFetchItemsAgain);
    chunk->again_at = now + limits_.ledger_retry_us;
    return;
  }
  job->move(*chunk, Stage::kWaiting);
  chunk->items_count = static_cast<std::uint32_t>(items->items.sizes.size());
  chunk->items = std::move(items->items);
  resident_bytes_ += chunk->resident_bytes();
  activate(*job, number, *chunk, now, actions);
}

// results

bool JobDesk::on_finished(FinishedUnit& finished, Actions& actions) {
  const auto found = units_.find(finished.id);
  if (found == units_.end()) {
    return false;
  }
  const auto [id, number] = std::move(found->second);
  units_.erase(found);
  const auto [job, chunk] = jobs_.chunk_in(Stage::kActive, id, number);
  CHECK(chunk != nullptr);
  const ModelId model = job->resolved->model;
  if (dispatcher_.identity(model).continues(job->fingerprint)) {
    job->fingerprint = dispatcher_.fingerprint(model);  // May be said anew since it went into work.
  }
  chunk->counts = {.job = id,
                   .chunk = number,
                   .items = chunk->items_count,
                   .items_failed = finished.items_failed,
                   .tokens = finished.tokens,
                   .cache_hits = finished.results.cache_hits,
                   .cache_joins = finished.results.cache_joins,
                   .cache_misses = finished.results.cache_misses,
                   .fingerprint = job->fingerprint,
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
  calls_.run(
      std::move(operation),
      [this, id = job.id, number](const ledger::Reply& reply, Micros now, Actions&) {
        const auto [stored_job, stored] = jobs_.chunk_in(Stage::kStoring, id, number);
        if (stored == nullptr) {
          return;
        }
        if (reply.status == Status::kFailed) {
          stored_job->move(*stored, Stage::kStoreAgain);
          stored->again_at = now + limits_.ledger_retry_us;
          return;
        }
        stored_job->done.insert(number);
        stored_job->items_done += stored->counts.items;
        settle(*stored_job, stored->counts.items);
        stored_job->items_failed += stored->counts.items_failed;
        stored_job->tokens_done += stored->counts.tokens;
        stored_job->cache_hits += stored->counts.cache_hits;
        stored_job->cache_joins += stored->counts.cache_joins;
        stored_job->cache_misses += stored->counts.cache_misses;
        stored_job->move(*stored, Stage::kReady);
        // Kept for a client that takes its results; else it is read from the ledger in its time.
        if (stored_job->peer.empty() || resident_bytes_ > limits_.resident_bytes_max ||
            stored_job->ready > limits_.unacknowledged_results_max) {
          drop_contents(*stored);
        }
      },
      actions);
}

void JobDesk::take_back_sent(Job& job) {
  for (auto& [number, chunk] : job.chunks) {
    credit_.give_back(job, chunk);
    if (chunk.stage == Stage::kSent) {
      job.move(chunk, Stage::kReady);
    }
  }
}

void JobDesk::send_results(Job& job, Actions& actions) {
  for (auto& [number, chunk] : job.chunks) {
    if (job.sent >= limits_.unacknowledged_results_max || job.ready == 0) {
      return;
    }
    if (chunk.stage != Stage::kReady) {
      continue;
    }
    // How large a result in the ledger is, is known when it has been read.
    const std::size_t bytes = chunk.result ? bytes_of(*chunk.result) : kResultBytesGuess;
    if (!credit_.allows(job, bytes)) {
      return;
    }
    if (!chunk.result) {
      fetch_result(job, number, chunk, actions);
      continue;
    }
    resident_bytes_ -= chunk.resident_bytes();
    protocol::ChunkResult result = std::move(*chunk.result);
    chunk.result.reset();
    send_result(job, chunk, std::move(result), actions);
  }
}

void JobDesk::send_result(Job& job, Chunk& chunk, protocol::ChunkResult result, Actions& actions) {
  job.move(chunk, Stage::kSent);
  credit_.take(job, chunk, bytes_of(result));
  actions.push_back(SendClient{job.peer, std::move(result)});
}

void JobDesk::fetch_result(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions) {
  job.move(chunk, Stage::kFetchingResult);
  credit_.take(job, chunk, kResultBytesGuess);
  calls_.run(
      ledger::FetchResult{.job = job.id, .chunk = number},
      [this, id = job.id, number](const ledger::Reply& reply, Micros now, Actions& out) {
        const auto [fetched_job, fetched] = jobs_.chunk_in(Stage::kFetchingResult, id, number);
        if (fetched == nullptr) {
          return;
        }
        credit_.give_back(*fetched_job, *fetched);
        auto result = reply.status == Status::kDone
                          ? ledger::read_result(reply.content)
                          : Result<protocol::ChunkResult>(Error{ErrorCode::kUnavailable, ""});
        if (!result) {
          log::error("job {}: the result of chunk {} was not readable", id, number);
          fetched_job->move(*fetched, Stage::kFetchResultAgain);
          fetched->again_at = now + limits_.ledger_retry_us;
          return;
        }
        fetched_job->move(*fetched, Stage::kReady);
        // Larger than thought, it may have to be read once more.
        if (!fetched_job->peer.empty() && credit_.allows(*fetched_job, bytes_of(*result))) {
          send_result(*fetched_job, *fetched, std::move(*result), out);
        }
      },
      actions);
}

void JobDesk::on_ack(const std::string& peer, const protocol::ResultAck& ack, Actions& actions) {
  const auto [job, chunk] = jobs_.chunk(ack.job_id, ack.chunk);
  // One who had the job before says nothing about what its next client has got.
  if (chunk == nullptr || job->peer != peer || !job->done.contains(ack.chunk) ||
      chunk->stage == Stage::kAcking) {
    return;
  }
  acknowledge(*job, ack.chunk, actions);
}

void JobDesk::acknowledge(Job& job, std::uint32_t number, Actions& actions) {
  Chunk& chunk = job.chunks.at(number);
  drop_contents(chunk);
  credit_.give_back(job, chunk);
  job.move(chunk, Stage::kAcking);
  calls_.run(
      ledger::AckResult{.job = job.id, .chunk = number},
      [this, id = job.id, number](const ledger::Reply& reply, Micros now, Actions& out) {
        const auto [acked_job, acked] = jobs_.chunk_in(Stage::kAcking, id, number);
        if (acked == nullptr) {
          return;
        }
        if (reply.status == Status::kFailed) {
          acked_job->move(*acked, Stage::kAckAgain);
          acked->again_at = now + limits_.ledger_retry_us;
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

}  // namespace tessera::coordinator
