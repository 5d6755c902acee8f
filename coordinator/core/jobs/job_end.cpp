#include <algorithm>
#include <utility>

#include "coordinator/core/events/replies.hpp"
#include "coordinator/core/jobs/job_desk.hpp"

// Closing, cancelling, the end, and what is tried again with time.
namespace tessera::coordinator {
namespace {

using Stage = Chunk::Stage;
using ledger::Status;

constexpr std::size_t kEndWaitersMax = 100;

}  // namespace

void JobDesk::on_close(const std::string& peer, const protocol::CloseJob& close, Actions& actions) {
  Job* job = jobs_.find(close.job_id);
  const auto refuse = [&](ErrorCode code, std::string why, std::uint32_t retry_ms = 0) {
    reply_error(peer, close.request_id, {code, std::move(why)}, actions, retry_ms);
  };
  if (job == nullptr || !job->created) {
    return refuse(ErrorCode::kNotFound, "no job has this id");
  }
  if (job->ended() || (job->closed && job->chunks_total == close.chunks)) {
    actions.push_back(SendClient{
        peer, protocol::JobUpdate{.request_id = close.request_id, .progress = job->progress()}});
    return;
  }
  if (job->closed) {
    return refuse(ErrorCode::kConflict, "the job was closed with another number of chunks");
  }
  const std::uint64_t beyond =
      job->chunks.empty() ? 0 : std::uint64_t{job->chunks.rbegin()->first} + 1;
  if (close.chunks > kJobChunksMax) {
    return refuse(ErrorCode::kInvalidArgument, "a job has at most 4194304 chunks");
  }
  if (close.chunks < std::max(job->accepted.end(), beyond)) {
    return refuse(ErrorCode::kConflict,
                  "the number of chunks is below what was submitted: send the job's items again, "
                  "or choose another key");
  }
  if (!ledger_up_ || calls_.busy()) {
    return refuse(ErrorCode::kUnavailable, "the ledger cannot be reached, or is behind",
                  kLedgerRetryMs);
  }
  calls_.run(
      ledger::CloseJob{.job = job->id, .chunks = close.chunks},
      [this, peer, close](const ledger::Reply& reply, Micros, Actions& out) {
        Job* closed = jobs_.find(close.job_id);
        if (closed == nullptr) {
          return;
        }
        if (reply.status == Status::kFailed) {
          reply_error(peer, close.request_id,
                      {ErrorCode::kUnavailable, "the ledger refused to close the job"}, out,
                      kLedgerRetryMs);
          return;
        }
        closed->closed = true;
        closed->chunks_total = close.chunks;
        out.push_back(SendClient{peer, protocol::JobUpdate{.request_id = close.request_id,
                                                           .progress = closed->progress()}});
        if (closed->all_delivered() && !closed->ended()) {
          end(*closed, protocol::JobState::kDone, out);
        }
      },
      actions);
}

void JobDesk::on_cancel(const std::string& peer, const protocol::CancelJob& cancel,
                        Actions& actions) {
  Job* job = jobs_.find(cancel.job_id);
  if (job == nullptr || !job->created) {
    return reply_error(peer, cancel.request_id, {ErrorCode::kNotFound, "no job has this id"},
                       actions);
  }
  if (job->end_durable) {
    actions.push_back(SendClient{
        peer, protocol::JobUpdate{.request_id = cancel.request_id, .progress = job->progress()}});
    return;
  }
  if (job->end_waiters.size() >= kEndWaitersMax) {
    return reply_error(peer, cancel.request_id,
                       {ErrorCode::kResourceExhausted, "too many wait for this job's end"}, actions,
                       kLedgerRetryMs);
  }
  job->end_waiters.emplace_back(peer, cancel.request_id);
  if (!job->ended()) {
    end(*job, protocol::JobState::kCancelled, actions);
  }
}

void JobDesk::end(Job& job, protocol::JobState state, Actions& actions) {
  job.state = state;
  for (auto& [number, chunk] : job.chunks) {
    job.end_drops.push_back(number);
    drop_contents(chunk);
    credit_.give_back(job, chunk);
    if (chunk.stage == Stage::kActive) {
      flow_.abandon(chunk.unit);
      units_.erase(chunk.unit);
    }
  }
  job.chunks.clear();
  settle(job, job.owed_items);
  job.waiting = job.ready = job.sent = job.acking = 0;
  job.active_items = 0;
  run_end(job, actions);
}

void JobDesk::run_end(Job& job, Actions& actions) {
  job.end_refused = false;
  calls_.run(
      ledger::EndJob{.job = job.id, .state = job.state, .chunks = job.end_drops},
      [this, id = job.id](const ledger::Reply& reply, Micros now, Actions& out) {
        if (Job* job_found = jobs_.find(id)) {
          ended(*job_found, reply, now, out);
        }
      },
      actions);
}

void JobDesk::ended(Job& job, const ledger::Reply& reply, Micros now, Actions& actions) {
  if (reply.status == Status::kFailed) {
    job.end_refused = true;
    job.end_again_at = now + limits_.ledger_retry_us;
    return;
  }
  job.end_durable = true;
  job.ended_at = now;
  jobs_.retire(job);
  job.end_drops.clear();
  if (!job.peer.empty()) {
    job.end_waiters.emplace_back(job.peer, 0);
  }
  for (const auto& [peer, request_id] : std::exchange(job.end_waiters, {})) {
    actions.push_back(SendClient{
        peer, protocol::JobUpdate{.request_id = request_id, .progress = job.progress()}});
  }
}

// What the ledger refused before.
void JobDesk::try_again(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions) {
  switch (chunk.stage) {
    case Stage::kFetchItemsAgain:
      job.move(chunk, Stage::kWaiting);
      break;
    case Stage::kStoreAgain:
      store(job, number, actions);
      break;
    case Stage::kFetchResultAgain:
      job.move(chunk, Stage::kReady);
      break;
    case Stage::kAckAgain:
      acknowledge(job, number, actions);
      break;
    default:
      break;
  }
}

void JobDesk::tick_job(Job& job, Micros now, Actions& actions) {
  if (job.ended()) {
    if (job.end_refused && now >= job.end_again_at) {
      run_end(job, actions);
    }
    return;
  }
  if (job.all_delivered()) {
    end(job, protocol::JobState::kDone, actions);  // Restored just before its end.
    return;
  }
  for (auto& [number, chunk] : job.chunks) {
    if (now >= chunk.again_at) {
      try_again(job, number, chunk, actions);
    }
  }
}

void JobDesk::tick(Micros now, Actions& actions) {
  if (!ledger_up_) {
    return;
  }
  for (const auto& [id, job] : jobs_.running()) {
    if (job->created) {
      tick_job(*job, now, actions);
    }
  }
  forget_old(now, actions);
}

// One at a time. A job is known here until the ledger knows it no more: its key must not become a
// new job's before.
void JobDesk::forget_old(Micros now, Actions& actions) {
  const Job* oldest = jobs_.oldest_ended();
  if (oldest == nullptr || calls_.busy()) {
    return;
  }
  const bool too_many = jobs_.size() > limits_.kept_jobs_max;
  if (!too_many && now - oldest->ended_at < limits_.keep_ended_us) {
    return;
  }
  jobs_.pass_over_oldest();
  calls_.run(
      ledger::ForgetJob{.job = oldest->id, .job_key = oldest->key, .tenant = oldest->tenant},
      [this, id = oldest->id](const ledger::Reply& reply, Micros, Actions&) {
        if (reply.status == Status::kFailed) {
          jobs_.put_back(id);
        } else {
          jobs_.remove(id);
        }
      },
      actions);
}

}  // namespace tessera::coordinator
