#pragma once

#include <map>
#include <set>
#include <unordered_map>

#include "coordinator/core/events/events.hpp"
#include "coordinator/core/flow/item_flow.hpp"
#include "coordinator/core/jobs/client_credit.hpp"
#include "coordinator/core/jobs/job_table.hpp"
#include "coordinator/core/jobs/ledger_calls.hpp"

namespace tessera::coordinator {

inline constexpr std::uint32_t kJobChunksMax = 1U << 22;  // A bitmap of 512 KiB in the ledger.
inline constexpr std::uint32_t kLedgerRetryMs = 1000;     // What clients are told to wait.

struct JobLimits {
  std::uint32_t window_chunks = 64;                  // Accepted and not delivered, per job.
  std::size_t window_bytes = 256U << 20;             // Of their items, per job.
  std::size_t resident_bytes_max = 512U << 20;       // Items and results of all jobs in memory.
  std::uint32_t unacknowledged_results_max = 16;     // Sent, per job,
  std::size_t unacknowledged_bytes_max = 32U << 20;  // and per client.
  // Results of accepted items that the ledger is yet to hold. A job within its share of it is
  // always let in, so twice that and a chunk of each job is the most.
  std::uint64_t owed_bytes_max = 512U << 20;
  std::size_t ledger_operations_max = 50'000;  // Under way; beyond, nothing new
  std::size_t ledger_bytes_max = 256U << 20;   // is taken in or begun.
  Micros ledger_retry_us = 1'000'000;          // After a refusal by the ledger.
  std::size_t open_jobs_max = 1000;
  std::size_t kept_jobs_max = 10'000;  // With those that have ended.
  Micros keep_ended_us = 24LL * 3600 * 1'000'000;
  std::uint64_t pending_tokens_min = 65'536;  // In work, at least; more with larger workers.
  std::uint32_t items_per_step_max = 8192;    // So that queries do not wait behind a step.
};

// What a client is told that sends other items for a chunk than the ledger has.
std::string chunk_conflict(const Job& job, std::uint32_t number);

// Takes jobs and their chunks in, makes them durable, lets them into work within their window, and
// delivers results to the client that has the job open. Any loss between here and the client, the
// ledger or a worker is met by doing the step again: each is idempotent. A result is sent once each
// time that a client opens the job, and only as far as the client acknowledges what it has got: for
// one that does not, results wait in the ledger.
class JobDesk {
 public:
  JobDesk(std::span<const ServedModel> models, Dispatcher& dispatcher, ItemFlow& flow,
          const JobLimits& limits);

  void restore(const std::vector<ledger::StoredJob>& stored, Micros now);

  void on_open(const std::string& peer, const std::string& tenant, const protocol::OpenJob& open,
               Actions& actions);
  void on_chunk(const std::string& peer, protocol::SubmitChunk chunk, std::uint32_t retry_after_ms,
                Actions& actions);
  void on_close(const std::string& peer, const protocol::CloseJob& close, Actions& actions);
  void on_ack(const std::string& peer, const protocol::ResultAck& ack, Actions& actions);
  void on_leave(const std::string& peer, const protocol::LeaveJob& leave);
  void on_cancel(const std::string& peer, const protocol::CancelJob& cancel, Actions& actions);
  void on_client_gone(const std::string& peer);

  void on_ledger_state(bool up) { ledger_up_ = up; }
  void on_ledger_reply(LedgerReply reply, Micros now, Actions& actions) {
    calls_.on_reply(std::move(reply), now, actions);
  }
  // False when the unit is not of a job.
  bool on_finished(FinishedUnit& finished, Actions& actions);
  void tick(Micros now, Actions& actions);
  // Lets chunks into work and sends results. Returns the number of items that went into work.
  std::uint32_t pump(Micros now, Actions& actions);
  // Takes nothing new in and lets nothing into work.
  void stop() { stopping_ = true; }

  bool has_backlog() const { return backlog_; }
  std::size_t ledger_operations() const { return calls_.under_way(); }
  std::size_t unacknowledged_bytes(const std::string& client) const {
    return credit_.taken_by(client);
  }
  std::size_t resident_bytes() const { return resident_bytes_; }
  // See JobLimits::owed_bytes_max.
  std::uint64_t owed_bytes() const { return owed_bytes_; }
  const JobTable& table() const { return jobs_; }

 private:
  std::optional<Error> refusal(const Job& job, const protocol::SubmitChunk& chunk) const;
  // Whether the results of so many items more will find room in the ledger.
  bool may_owe(const Job& job, std::size_t items) const;
  // Whether a chunk that is here, or in the ledger, is the one that was sent again.
  void recognise(const std::string& peer, Job& job, std::uint32_t number,
                 const protocol::ChunkDigest& digest, std::uint32_t retry_after_ms,
                 Actions& actions);
  void recognised(const std::string& peer, const Job& job, std::uint32_t number,
                  const ledger::Reply& reply, Actions& actions);
  void accept(const std::string& peer, Job& job, protocol::SubmitChunk chunk,
              const protocol::ChunkDigest& digest, Actions& actions);
  void accepted(const JobId& id, std::uint32_t number, const ledger::Reply& reply,
                Actions& actions);
  // `open` names the job and who opens it; its other fields are not looked at.
  void answer_open(const std::string& peer, const protocol::OpenJob& open, Job& job,
                   Actions& actions);
  void hand_over(const std::string& peer, const protocol::OpenJob& open, Job& job,
                 Actions& actions);
  void activate(Job& job, std::uint32_t number, Chunk& chunk, Micros now, Actions& actions);
  void fetch_items(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions);
  void items_fetched(const JobId& id, std::uint32_t number, const ledger::Reply& reply, Micros now,
                     Actions& actions);
  Job* next_to_activate();
  void store(Job& job, std::uint32_t number, Actions& actions);
  // What was sent to the job's client, or is being fetched for it, waits for the next one.
  void take_back_sent(Job& job);
  void send_results(Job& job, Actions& actions);
  void send_result(Job& job, Chunk& chunk, protocol::ChunkResult result, Actions& actions);
  void fetch_result(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions);
  void acknowledge(Job& job, std::uint32_t number, Actions& actions);
  void end(Job& job, protocol::JobState state, Actions& actions);
  void run_end(Job& job, Actions& actions);
  void ended(Job& job, const ledger::Reply& reply, Micros now, Actions& actions);
  void forget_old(Micros now, Actions& actions);
  void tick_job(Job& job, Micros now, Actions& actions);
  void try_again(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions);
  void drop_contents(Chunk& chunk);
  // Counts items that have been taken in, and those that are stored or dropped.
  void owe(Job& job, std::uint32_t items);
  void settle(Job& job, std::uint64_t items);

  const std::span<const ServedModel> models_;
  Dispatcher& dispatcher_;
  ItemFlow& flow_;
  const JobLimits limits_;
  JobTable jobs_;
  LedgerCalls calls_;
  ClientCredit credit_;
  std::set<JobId> unserved_;  // In the ledger and not here: of models that are not served now.
  std::unordered_map<UnitId, std::pair<JobId, std::uint32_t>> units_;
  std::size_t resident_bytes_ = 0;
  std::uint64_t owed_bytes_ = 0;  // The sum over the jobs.
  bool ledger_up_ = true;
  bool stopping_ = false;
  bool backlog_ = false;
};

}  // namespace tessera::coordinator
