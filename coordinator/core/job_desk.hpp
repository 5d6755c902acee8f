#pragma once

#include <functional>
#include <map>
#include <unordered_map>

#include "coordinator/core/events.hpp"
#include "coordinator/core/item_flow.hpp"
#include "coordinator/core/job.hpp"

namespace tessera::coordinator {

struct JobLimits {
  std::uint32_t window_chunks = 64;               // Accepted and not delivered, per job.
  std::size_t window_bytes = 256U << 20;          // Of their items, per job.
  std::size_t resident_bytes_max = 512U << 20;    // Items and results of all jobs in memory.
  std::uint32_t unacknowledged_results_max = 16;  // Per job.
  Micros resend_us = 60'000'000;                  // A result that was sent and not acknowledged.
  std::size_t open_jobs_max = 1000;
  std::size_t kept_jobs_max = 10'000;  // With those that have ended.
  Micros keep_ended_us = 24LL * 3600 * 1'000'000;
  std::uint64_t pending_tokens_min = 65'536;  // In work, at least; more with larger workers.
  std::uint32_t items_per_step_max = 8192;    // So that queries do not wait behind a step.
};

// Takes jobs and their chunks in, makes them durable, lets them into work within their window, and
// delivers results to the client that has the job open. Any loss between here and the client, the
// ledger or a worker is met by doing the step again: each is idempotent.
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
  void on_ack(const protocol::ResultAck& ack, Actions& actions);
  void on_cancel(const std::string& peer, const protocol::CancelJob& cancel, Actions& actions);
  void on_client_gone(const std::string& peer);

  void on_ledger_state(bool up) { ledger_up_ = up; }
  void on_ledger_reply(LedgerReply reply, Micros now, Actions& actions);
  // False when the unit is not of a job.
  bool on_finished(FinishedUnit& finished, Actions& actions);
  void tick(Micros now, Actions& actions);
  // Lets chunks into work and sends results. Returns the number of items that went into work.
  std::uint32_t pump(Micros now, Actions& actions);
  // Takes nothing new in and lets nothing into work.
  void stop() { stopping_ = true; }

  bool has_backlog() const { return backlog_; }
  std::size_t ledger_operations() const { return pending_.size(); }
  std::size_t resident_bytes() const { return resident_bytes_; }
  const Job* find(const JobId& id) const;
  // Open jobs first, at most `count_max`.
  std::vector<protocol::JobProgress> progress(std::size_t count_max) const;

 private:
  // Called with the ledger's answer; not for kFenced.
  using Continuation = std::function<void(ledger::Reply, Micros, Actions&)>;

  void run(ledger::Operation operation, Continuation done, Actions& actions);
  Job* find_job(const JobId& id);
  Chunk* find_chunk(const JobId& id, std::uint32_t chunk);
  std::optional<Error> refusal(const Job& job, const protocol::SubmitChunk& chunk) const;
  void accept(const std::string& peer, Job& job, protocol::SubmitChunk chunk, Actions& actions);
  void accepted(const std::string& peer, const JobId& id, std::uint32_t number,
                const ledger::Reply& reply, Actions& actions);
  void answer_open(const std::string& peer, std::uint64_t request_id, Job& job, Actions& actions);
  void pin(Job& job, Actions& actions);
  void activate(Job& job, std::uint32_t number, Chunk& chunk, Micros now, Actions& actions);
  void fetch_items(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions);
  void items_fetched(const JobId& id, std::uint32_t number, const ledger::Reply& reply, Micros now,
                     Actions& actions);
  Job* next_to_activate();
  void store(Job& job, std::uint32_t number, Actions& actions);
  void send_results(Job& job, Micros now, Actions& actions);
  void send_result(Job& job, Chunk& chunk, protocol::ChunkResult result, Micros now,
                   Actions& actions);
  void fetch_result(Job& job, std::uint32_t number, Chunk& chunk, Actions& actions);
  void acknowledge(Job& job, std::uint32_t number, Actions& actions);
  void end(Job& job, protocol::JobState state, Actions& actions);
  void run_end(Job& job, Actions& actions);
  void ended(Job& job, const ledger::Reply& reply, Micros now, Actions& actions);
  void forget_old(Micros now, Actions& actions);
  void tick_job(Job& job, Micros now, Actions& actions);
  void drop_contents(Chunk& chunk);

  const std::span<const ServedModel> models_;
  Dispatcher& dispatcher_;
  ItemFlow& flow_;
  const JobLimits limits_;
  std::map<JobId, Job> jobs_;
  std::unordered_map<std::uint64_t, Continuation> pending_;  // By id of the RunLedger.
  std::unordered_map<UnitId, std::pair<JobId, std::uint32_t>> units_;
  std::uint64_t next_operation_ = 1;
  std::size_t resident_bytes_ = 0;
  bool ledger_up_ = true;
  bool stopping_ = false;
  bool backlog_ = false;
};

}  // namespace tessera::coordinator
