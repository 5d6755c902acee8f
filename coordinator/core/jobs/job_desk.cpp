#include "coordinator/core/jobs/job_desk.hpp"

#include <algorithm>
#include <utility>

#include "common/check.hpp"
#include "common/log.hpp"
#include "coordinator/core/events/replies.hpp"
#include "coordinator/core/items/resolved_spec.hpp"

// Taking in: restoring, opening, chunks. What follows is in job_delivery.cpp and job_end.cpp.
namespace tessera::coordinator {
namespace {

using Stage = Chunk::Stage;
using ledger::Status;

constexpr std::size_t kGapsMax = 4096;
constexpr std::uint32_t kPriorityMax = 100;
constexpr std::size_t kOpenersMax = 64;

Error unserved_error() {
  return {ErrorCode::kConflict,
          "the ledger has a job with this key that cannot be served now: choose another key"};
}

Error taken_over_error() {
  return {ErrorCode::kConflict, "another client has taken this job up since, and gets its results"};
}

std::string chunk_items_conflict(const Job& job, std::uint32_t other) {
  return "job \"" + job.key + "\" was begun with " + std::to_string(job.chunk_items) +
         " items a chunk, not " + std::to_string(other) +
         ": keep that number, or choose another key";
}

}  // namespace

JobDesk::JobDesk(std::span<const ServedModel> models, Dispatcher& dispatcher, ItemFlow& flow,
                 const JobLimits& limits)
    : models_(models),
      dispatcher_(dispatcher),
      flow_(flow),
      limits_(limits),
      calls_({.operations_max = limits.ledger_operations_max,
              .bytes_max = limits.ledger_bytes_max,
              .log_every_us = limits.ledger_retry_us}),
      credit_(limits.unacknowledged_bytes_max) {}

void JobDesk::restore(const std::vector<ledger::StoredJob>& stored, Micros now) {
  for (const ledger::StoredJob& entry : stored) {
    auto job = Job::restore(entry, models_);
    if (!job) {
      log::warn("job {} of the ledger cannot be served now: {}", entry.job, job.error().message);
      unserved_.insert(entry.job);
      continue;
    }
    job->ended_at = now;
    if (!job->ended() && !job->fingerprint.empty()) {
      dispatcher_.pin_fingerprint(job->resolved->model, job->fingerprint,
                                  "unfinished job \"" + job->key + "\"");
    }
    owed_bytes_ += jobs_.add(std::move(*job)).owed_bytes();
  }
}

void JobDesk::on_open(const std::string& peer, const std::string& tenant,
                      const protocol::OpenJob& open, Actions& actions) {
  const auto refuse = [&](ErrorCode code, std::string why, std::uint32_t retry_ms = 0) {
    reply_error(peer, open.request_id, {code, std::move(why)}, actions, retry_ms);
  };
  if (open.job_key.empty() || open.job_key.size() > protocol::kNameBytesMax) {
    return refuse(ErrorCode::kInvalidArgument, "a job key has 1 to 256 bytes");
  }
  if (tenant.size() > protocol::kNameBytesMax || open.trace.id.size() > protocol::kNameBytesMax ||
      open.trace.traceparent.size() > protocol::kNameBytesMax) {
    return refuse(ErrorCode::kInvalidArgument,
                  "a tenant, a job's name in logs and a traceparent have at most 256 bytes");
  }
  if (open.priority < 1 || open.priority > kPriorityMax) {
    return refuse(ErrorCode::kInvalidArgument, "a priority is 1 to 100");
  }
  auto resolved = resolve(open.spec, models_);
  if (!resolved) {
    return refuse(resolved.error().code, resolved.error().message);
  }
  const JobId id = ledger::job_id_of(tenant, open.job_key);
  Job* known = jobs_.find(id);
  if (known != nullptr && known->spec != open.spec) {
    return refuse(ErrorCode::kConflict,
                  "the job with this key has another specification: choose another key");
  }
  if (known != nullptr && known->chunk_items != 0 && open.chunk_items != 0 &&
      known->chunk_items != open.chunk_items) {
    return refuse(ErrorCode::kConflict, chunk_items_conflict(*known, open.chunk_items));
  }
  const auto trace = open.trace == protocol::RequestTrace{}
                         ? nullptr
                         : std::make_shared<const protocol::RequestTrace>(open.trace);
  if (known != nullptr && open.opener != 0 &&
      std::ranges::count(known->openers_before, open.opener) > 0) {
    return reply_error(peer, open.request_id, taken_over_error(), actions);
  }
  if (known != nullptr && (known->created || !calls_.busy())) {
    known->trace = trace;
    return answer_open(peer, open, *known, actions);
  }
  if (unserved_.contains(id)) {
    return reply_error(peer, open.request_id, unserved_error(), actions);
  }
  if (stopping_ || !ledger_up_) {
    return refuse(ErrorCode::kUnavailable, "no new job can be made durable now", kLedgerRetryMs);
  }
  if (jobs_.running().size() >= limits_.open_jobs_max || calls_.busy()) {
    return refuse(ErrorCode::kResourceExhausted, "too many jobs are open, or are being opened",
                  kLedgerRetryMs);
  }
  Job job;
  job.id = id;
  job.key = open.job_key;
  job.tenant = tenant;
  job.spec = open.spec;
  job.resolved = std::make_shared<const ResolvedSpec>(std::move(*resolved));
  job.priority = open.priority;
  job.chunk_items = open.chunk_items;
  job.trace = trace;
  answer_open(peer, open, jobs_.add(std::move(job)), actions);
}

void JobDesk::answer_open(const std::string& peer, const protocol::OpenJob& open, Job& job,
                          Actions& actions) {
  if (!job.created) {
    calls_.run(
        ledger::CreateJob{.job = job.id,
                          .job_key = job.key,
                          .tenant = job.tenant,
                          .spec = ledger::encode_spec(job.spec, job.chunk_items),
                          .priority = job.priority},
        [this, peer, open, id = job.id](const ledger::Reply& reply, Micros, Actions& out) {
          Job* created = jobs_.find(id);
          if (created == nullptr) {
            return;
          }
          if (reply.status == Status::kConflict && !created->created) {
            unserved_.insert(id);
            reply_error(peer, open.request_id, unserved_error(), out);
            jobs_.remove(id);
            return;
          }
          if (reply.status == Status::kFailed) {
            reply_error(peer, open.request_id,
                        {ErrorCode::kUnavailable, "the ledger refused the job"}, out,
                        kLedgerRetryMs);
            if (!created->created && created->chunks.empty()) {
              jobs_.remove(id);
            }
            return;
          }
          created->created = true;
          answer_open(peer, open, *created, out);
        },
        actions);
    return;
  }
  hand_over(peer, open, job, actions);
  actions.push_back(
      SendClient{peer, protocol::JobOpened{.request_id = open.request_id,
                                           .job_id = job.id,
                                           .state = job.state,
                                           .window_chunks = limits_.window_chunks,
                                           .accepted = job.accepted.to_pairs(),
                                           .delivered = job.acknowledged().to_pairs()}});
  if (job.ended() && job.end_durable) {
    actions.push_back(
        SendClient{peer, protocol::JobUpdate{.request_id = 0, .progress = job.progress()}});
  }
}

// Results go to the one who came last. Who had the job would wait for them in vain, so it hears of
// it; so does one that comes again because it did not hear.
void JobDesk::hand_over(const std::string& peer, const protocol::OpenJob& open, Job& job,
                        Actions& actions) {
  take_back_sent(job);  // It may not have arrived.
  const bool another =
      open.opener != 0 || job.opener != 0 ? job.opener != open.opener : job.peer != peer;
  if (another && job.opener != 0) {
    job.openers_before.push_back(job.opener);
    if (job.openers_before.size() > kOpenersMax) {
      job.openers_before.pop_front();
    }
  }
  if (another && !job.peer.empty() && !job.ended()) {
    reply_error(job.peer, job.open_request, taken_over_error(), actions);
  } else if (another && !job.peer.empty() && !job.end_durable) {
    job.end_waiters.emplace_back(job.peer, 0);  // It has all, and waits for the word of the end.
  }
  job.peer = peer;
  job.opener = open.opener;
  job.open_request = open.request_id;
}

void JobDesk::on_leave(const std::string& peer, const protocol::LeaveJob& leave) {
  Job* job = jobs_.find(leave.job_id);
  if (job != nullptr && job->peer == peer && job->opener == leave.opener) {
    take_back_sent(*job);
    job->peer.clear();
  }
}

// Why the chunk cannot be taken now or ever; nothing when it can.
std::optional<Error> JobDesk::refusal(const Job& job, const protocol::SubmitChunk& chunk) const {
  if (job.state == protocol::JobState::kCancelled) {
    return Error{ErrorCode::kCancelled, "the job was cancelled"};
  }
  if (chunk.chunk > kJobChunksMax - 1) {
    return Error{ErrorCode::kInvalidArgument, "a job has at most 4194304 chunks"};
  }
  if (job.closed && chunk.chunk >= job.chunks_total) {
    return Error{ErrorCode::kConflict, "the job was closed with " +
                                           std::to_string(job.chunks_total) +
                                           " chunks: send its items again, or choose another key"};
  }
  if (auto valid = protocol::validate(chunk.items); !valid) {
    return valid.error();
  }
  if (auto fits = check_answer_fits(*job.resolved, chunk.items.sizes.size()); !fits) {
    return fits.error();
  }
  if (stopping_ || !ledger_up_) {
    return Error{ErrorCode::kUnavailable, "no chunk can be made durable now"};
  }
  if (calls_.busy()) {
    return Error{ErrorCode::kResourceExhausted, "the ledger is behind with what it has to write"};
  }
  // What is acknowledged holds nothing any more, even while the ledger writes that down.
  if (job.chunks.size() - job.acking >= limits_.window_chunks) {
    return Error{ErrorCode::kResourceExhausted, "the job's window is full: take results first"};
  }
  if (job.accepted.ranges() > kGapsMax) {
    return Error{ErrorCode::kResourceExhausted, "too many gaps between the chunks"};
  }
  std::size_t bytes = chunk.items.payload.size();
  for (const auto& [number, other] : job.chunks) {
    bytes += other.resident_bytes();
  }
  if (bytes > limits_.window_bytes && !job.chunks.empty()) {
    return Error{ErrorCode::kResourceExhausted, "the job's window is full: take results first"};
  }
  if (!may_owe(job, chunk.items.sizes.size())) {
    return Error{ErrorCode::kResourceExhausted,
                 "the room left in the ledger is for the results of items that it has"};
  }
  return std::nullopt;
}

bool JobDesk::may_owe(const Job& job, std::size_t items) const {
  const std::uint64_t bytes = items * job.resolved->row_bytes();
  return job.owed_items == 0 || owed_bytes_ + bytes <= limits_.owed_bytes_max ||
         job.owed_bytes() + bytes <= limits_.owed_bytes_max / jobs_.running().size();
}

void JobDesk::owe(Job& job, std::uint32_t items) {
  job.owed_items += items;
  owed_bytes_ += items * job.resolved->row_bytes();
}

void JobDesk::settle(Job& job, std::uint64_t items) {
  const std::uint64_t settled = std::min(job.owed_items, items);  // The ledger's count of them.
  job.owed_items -= settled;
  owed_bytes_ -= settled * job.resolved->row_bytes();
}

void JobDesk::on_chunk(const std::string& peer, protocol::SubmitChunk chunk,
                       std::uint32_t retry_after_ms, Actions& actions) {
  if (chunk.job_id.size() > protocol::kNameBytesMax) {
    return reply_error(peer, 0, {ErrorCode::kInvalidArgument, "the job id is too long"}, actions);
  }
  protocol::ChunkAck ack{.job_id = chunk.job_id, .chunk = chunk.chunk};
  Job* job = jobs_.find(chunk.job_id);
  const bool is_question = chunk.items.sizes.empty() && !chunk.digest.empty();
  const auto digest =
      is_question ? protocol::to_digest(chunk.digest) : protocol::digest_of(chunk.items);
  if (job == nullptr || !job->created) {
    ack.code = ErrorCode::kNotFound;
    ack.message = "no job has this id";
  } else if (!digest) {
    ack.code = ErrorCode::kInvalidArgument;
    ack.message = "the digest of a chunk has 16 bytes, not all zero";
  } else if (job->accepted.contains(chunk.chunk) || job->chunks.contains(chunk.chunk)) {
    return recognise(peer, *job, chunk.chunk, *digest, retry_after_ms, actions);
  } else if (is_question) {
    ack.code = ErrorCode::kNotFound;
    ack.message = "the ledger does not have this chunk: send its items";
  } else if (auto refused = refusal(*job, chunk)) {
    ack.code = refused->code;
    ack.message = refused->message;
    if (ack.code == ErrorCode::kUnavailable || ack.code == ErrorCode::kResourceExhausted) {
      ack.retry_after_ms = retry_after_ms;
    }
  } else {
    return accept(peer, *job, std::move(chunk), *digest, actions);
  }
  actions.push_back(SendClient{peer, std::move(ack)});
}

void JobDesk::accept(const std::string& peer, Job& job, protocol::SubmitChunk chunk,
                     const protocol::ChunkDigest& digest, Actions& actions) {
  Chunk& entry = job.chunks[chunk.chunk];
  entry.items_count = static_cast<std::uint32_t>(chunk.items.sizes.size());
  entry.submitter = peer;
  entry.digest = digest;
  owe(job, entry.items_count);
  ledger::AcceptChunk operation{.job = job.id,
                                .chunk = chunk.chunk,
                                .items = entry.items_count,
                                .digest = digest,
                                .content = ledger::journal_chunk(chunk)};
  if (resident_bytes_ < limits_.resident_bytes_max) {
    entry.items = std::move(chunk.items);
    resident_bytes_ += entry.resident_bytes();
  }
  calls_.run(
      std::move(operation),
      [this, id = job.id, number = chunk.chunk](const ledger::Reply& reply, Micros, Actions& out) {
        accepted(id, number, reply, out);
      },
      actions);
}

void JobDesk::accepted(const JobId& id, std::uint32_t number, const ledger::Reply& reply,
                       Actions& actions) {
  const auto [job, chunk] = jobs_.chunk_in(Stage::kJournalling, id, number);
  if (chunk == nullptr) {
    return;  // Cancelled meanwhile.
  }
  protocol::ChunkAck ack{.job_id = id, .chunk = number};
  const std::string peer = std::exchange(chunk->submitter, {});
  if (reply.status == Status::kFailed || reply.status == Status::kConflict) {
    const bool conflict = reply.status == Status::kConflict;
    ack.code = conflict ? ErrorCode::kConflict : ErrorCode::kUnavailable;
    ack.message = conflict ? chunk_conflict(*job, number) : "the ledger refused the chunk";
    ack.retry_after_ms = conflict ? 0 : kLedgerRetryMs;
    drop_contents(*chunk);
    settle(*job, chunk->items_count);
    job->chunks.erase(number);
  } else {
    job->accepted.insert(number);
    job->items_accepted += chunk->items_count;
    job->state = protocol::JobState::kRunning;
    job->move(*chunk, Stage::kWaiting);
  }
  actions.push_back(SendClient{peer, std::move(ack)});
}

void JobDesk::on_client_gone(const std::string& peer) {
  for (auto& [id, job] : jobs_.running()) {
    if (job->peer == peer) {
      take_back_sent(*job);
      job->peer.clear();
    }
  }
}

}  // namespace tessera::coordinator
