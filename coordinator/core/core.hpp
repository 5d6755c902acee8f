#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "coordinator/core/events/events.hpp"
#include "coordinator/core/flow/item_flow.hpp"
#include "coordinator/core/jobs/job_desk.hpp"
#include "coordinator/core/ledger_watch.hpp"
#include "coordinator/core/plumbing_metrics.hpp"
#include "coordinator/core/queries/query_desk.hpp"
#include "coordinator/core/records/record_desk.hpp"
#include "coordinator/core/scheduling/dispatcher.hpp"

namespace tessera::coordinator {

struct CoreOptions {
  std::vector<ServedModel> models;
  std::uint64_t epoch = 1;  // Leader term, from the ledger.
  LedgerInfo ledger;        // Its `term` is not read: it is `epoch`.
  std::size_t cache_bytes = 256U << 20;
  DispatcherOptions dispatcher;
  JobLimits jobs;
  QueryLimits queries;
  RecordLimits records;
};

// The coordinator's state machine: `step(event, now)` gives actions, and nothing in here knows a
// socket, a clock, a thread or Redis, so that a simulator with a seed can drive the very same code.
// Used by one thread. `now` never goes back.
//
// Inside, data flows one way: QueryDesk and JobDesk start units; ItemFlow answers their items from
// the cache or brings each distinct one once through tokenising to the Dispatcher; what workers
// answer comes back as finished units.
class Core {
 public:
  Core(CoreOptions options, const std::vector<ledger::StoredJob>& stored, Micros now,
       std::vector<ledger::StoredRecord> records = {});
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  Actions step(Event event, Micros now);
  // More could be done at once: step with a Tick before waiting for anything.
  bool has_backlog() const { return jobs_.has_backlog(); }

  // Of results that the ledger will have to hold when all that it has accepted has ended.
  std::uint64_t owed_bytes() const { return jobs_.owed_bytes(); }
  // Of results that were sent to the client and not acknowledged by it.
  std::size_t unacknowledged_bytes(const std::string& client) const {
    return jobs_.unacknowledged_bytes(client);
  }

  // One line of counters for the log.
  std::string metrics() const;

 private:
  struct Client {
    std::string tenant;
    Micros heard_at = 0;
    bool takes_batches = false;  // It has sent EmbedRequests, so it reads EmbedReplies.
  };

  void on(FromClient& event, Micros now, Actions& actions);
  void on(FromWorker& event, Micros now, Actions& actions);
  void on(BadFromClient& event, Micros now, Actions& actions);
  void on(BadFromWorker& event, Micros now, Actions& actions);
  void on(ClientGone& event, Micros now, Actions& actions);
  void on(WorkerGone& event, Micros now, Actions& actions);
  void on(LedgerReply& event, Micros now, Actions& actions);
  void on(LedgerState& event, Micros now, Actions& actions);
  void on(CacheReply& event, Micros now, Actions& actions);
  void on(TokensReady& event, Micros now, Actions& actions);
  void on(Tick& event, Micros now, Actions& actions);
  void on(StopRequested& event, Micros now, Actions& actions);

  // Who sent a message, when, and where the answers go.
  struct Asked {
    const std::string& peer;
    std::string tenant;  // As the client's hello said; empty before it.
    Micros now = 0;
    Actions& actions;
  };
  void take(protocol::ClientHello& hello, const Asked& asked);
  void take(protocol::Ping& ping, const Asked& asked);
  void take(protocol::Pong& pong, const Asked& asked);
  void take(protocol::MetricsRequest& request, const Asked& asked);
  void take(protocol::StatusRequest& request, const Asked& asked);
  void take(protocol::RecordPut& put, const Asked& asked);
  void take(protocol::RecordQuery& query, const Asked& asked);
  void take(protocol::RecordClaim& claim, const Asked& asked);
  void take(protocol::RecordDelete& deletion, const Asked& asked);
  void take(protocol::EmbedRequest& embed, const Asked& asked);
  void take(protocol::EmbedRequests& batch, const Asked& asked);
  void take(protocol::OpenJob& open, const Asked& asked);
  void take(protocol::SubmitChunk& chunk, const Asked& asked);
  void take(protocol::ResultAck& ack, const Asked& asked);
  void take(protocol::LeaveJob& leave, const Asked& asked);
  void take(protocol::CloseJob& close, const Asked& asked);
  void take(protocol::CancelJob& cancel, const Asked& asked);
  template <typename Other>  // What is not a client's to send.
  void take(Other& other, const Asked& asked);

  void on_requests(std::vector<protocol::EmbedRequest> requests, const Asked& asked);
  // False when the worker knows a newer term than this one, and is told to ask again.
  bool hear_claim(const std::string& peer, const protocol::WorkerHello& hello, Actions& actions);
  // Hands on what units have ended.
  void finish_units(Micros now, Actions& actions);
  // Brings forward whatever the event made possible.
  void settle(Micros now, Actions& actions);
  // Until when a refused request should wait, from the measured rate.
  std::uint32_t retry_after_ms() const;
  std::vector<protocol::ModelInfo> model_infos() const;
  std::vector<protocol::WorkerStatus> worker_statuses() const;

  const CoreOptions options_;
  const Micros started_at_;
  LedgerWatch watch_;
  Dispatcher dispatcher_;
  ItemFlow flow_;
  QueryDesk queries_;
  JobDesk jobs_;
  RecordDesk records_;
  PlumbingMetrics plumbing_;
  std::unordered_map<std::string, Client> clients_;  // By peer.
  Micros clients_swept_at_ = 0;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace tessera::coordinator
