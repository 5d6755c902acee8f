#include "coordinator/core/jobs/job_desk.hpp"

// A job's chunk is the same chunk, whoever sends it again and whenever.
namespace tessera::coordinator {

using ledger::Status;

std::string chunk_conflict(const Job& job, std::uint32_t number) {
  return "the ledger has other items for chunk " + std::to_string(number) + " of job \"" + job.key +
         "\": send those again, or choose another key";
}

void JobDesk::recognise(const std::string& peer, Job& job, std::uint32_t number,
                        const protocol::ChunkDigest& digest, std::uint32_t retry_after_ms,
                        Actions& actions) {
  protocol::ChunkAck ack{.job_id = job.id, .chunk = number};
  Chunk* chunk = jobs_.chunk(job.id, number).chunk;
  if (chunk != nullptr && chunk->digest) {
    if (*chunk->digest != digest) {
      ack.code = ErrorCode::kConflict;
      ack.message = chunk_conflict(job, number);
    } else if (chunk->stage == Chunk::Stage::kJournalling) {
      if (job.peer == peer) {
        chunk->submitter = peer;  // Its journal entry is being written; the answer follows.
      }
      return;
    }
    actions.push_back(SendClient{peer, std::move(ack)});
    return;
  }
  if (!ledger_up_ || calls_.busy()) {
    ack.code = ErrorCode::kUnavailable;
    ack.message = "the ledger cannot be asked for the chunk now";
    ack.retry_after_ms = retry_after_ms;
    actions.push_back(SendClient{peer, std::move(ack)});
    return;
  }
  calls_.run(
      ledger::CheckChunk{.job = job.id, .chunk = number, .digest = digest},
      [this, peer, id = job.id, number](const ledger::Reply& reply, Micros, Actions& out) {
        if (const Job* found = jobs_.find(id)) {
          recognised(peer, *found, number, reply, out);
        }
      },
      actions);
}

void JobDesk::recognised(const std::string& peer, const Job& job, std::uint32_t number,
                         const ledger::Reply& reply, Actions& actions) {
  protocol::ChunkAck ack{.job_id = job.id, .chunk = number};
  if (reply.status == Status::kConflict) {
    ack.code = ErrorCode::kConflict;
    ack.message = chunk_conflict(job, number);
  } else if (reply.status == Status::kMissing) {
    ack.code = ErrorCode::kNotFound;
    ack.message = "the ledger does not have this chunk any more";
  } else if (reply.status == Status::kFailed) {
    ack.code = ErrorCode::kUnavailable;
    ack.message = "the ledger did not say whether it has the chunk";
    ack.retry_after_ms = kLedgerRetryMs;
  }
  actions.push_back(SendClient{peer, std::move(ack)});
}

}  // namespace tessera::coordinator
