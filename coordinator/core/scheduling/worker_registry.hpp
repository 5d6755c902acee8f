#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/items/served_model.hpp"
#include "coordinator/core/scheduling/cost_correction.hpp"
#include "coordinator/core/scheduling/scheduler.hpp"

namespace tessera::coordinator {

// Terms count by ones from a minute of the clock on; the ledger's scripts count exactly up to 2^53.
inline constexpr std::uint64_t kTermMax = std::uint64_t{1} << 52U;

struct RegistryOptions {
  Micros heartbeat_us = 1'000'000;
  int missed_heartbeats_max = 3;
};

// One process start of a worker, known by its routing id.
struct Worker {
  std::string peer;
  protocol::WorkerHello hello;
  ModelId model = 0;
  Micros heard_at = 0;
  Micros pinged_at = 0;
  std::vector<std::uint64_t> batches;  // In flight, oldest first.
  std::uint64_t express_batch = 0;     // Among them the one that overtakes; 0: none.
  bool leaving = false;                // Said goodbye: gets no more.
  bool exclusive = false;              // Runs an item alone: nothing beside it.
  std::uint64_t batches_done = 0;
  std::uint64_t tokens_done = 0;
  double tokens_per_second = 0;  // Smoothed over some seconds,
  double drain_rate = 0;         // the same without the time that it had nothing to do.
  std::uint64_t tokens_at_sample = 0;
  Micros sampled_at = 0;
  CostCorrection cost_correction;
  std::optional<protocol::WorkerMetrics> metrics;  // Its last report; older workers send none.

  // Its batches that take turns.
  std::uint32_t in_slots() const {
    return static_cast<std::uint32_t>(batches.size()) - (express_batch == 0 ? 0 : 1);
  }
  bool takes_work() const {
    return !leaving && !exclusive && in_slots() < std::max(hello.slots, 1U);
  }
  // Beside what it computes; an idle worker needs none.
  bool takes_express() const {
    return !leaving && !exclusive && hello.express_tokens > 0 && express_batch == 0 &&
           !batches.empty();
  }
  std::uint32_t free_slots() const { return takes_work() ? hello.slots - in_slots() : 0; }
};

// The workers that are there. Any message is a sign of life; who is silent for a heartbeat is
// pinged, who is silent for three is dead. When it is this process that was away (paused, starved),
// that time is nobody's silence. Pure: the moment is an argument.
class WorkerRegistry {
 public:
  explicit WorkerRegistry(const RegistryOptions& options = {}) : options_(options) {}

  // Refuses a hello whose numbers cannot be worked with.
  static Result<void> check(const protocol::WorkerHello& hello, const ServedModel& model);

  // Requires a peer that is not there yet, and a checked hello.
  Worker& add(const std::string& peer, protocol::WorkerHello hello, ModelId model, Micros now);
  Worker* find(const std::string& peer);
  const Worker* find_process(std::uint64_t process) const;  // Not 0.
  void remove(const std::string& peer) { workers_.erase(peer); }
  void heard(const std::string& peer, Micros now);
  // Takes over a report, or drops one that makes no sense.
  static void on_metrics(Worker& worker, protocol::WorkerMetrics metrics);

  struct Due {
    std::vector<std::string> to_ping;
    std::vector<std::string> dead;
  };
  Due tick(Micros now);

  // The worker of the model that should be given a batch next: the one with the fewest in flight;
  // nullptr when none has a free slot. `skip` were asked already.
  Worker* next_free(ModelId model, const std::vector<const Worker*>& skip);
  // The worker of the model that should be given an express batch, with the fewest others in
  // flight; nullptr when none takes one.
  Worker* next_express(ModelId model);
  // With the costs that the worker stated, corrected by what its batches took.
  WorkerCapacity capacity(const Worker& worker) const;
  std::uint32_t count(ModelId model) const;
  // The longest sequence that a live worker of the model takes; 0 without workers.
  std::uint32_t max_seqlen(ModelId model) const;
  // What the model's workers compute in, as one of them says; empty without one that does.
  std::string number_format(ModelId model) const;
  // What all workers of the model hold in one batch each.
  std::uint64_t batch_tokens(ModelId model) const;

  const std::map<std::string, Worker>& all() const { return workers_; }

 private:
  // Of the model's workers of which `takes(worker)`; nullptr when none does.
  template <typename Takes>
  Worker* least_loaded(ModelId model, Takes takes);

  const RegistryOptions options_;
  std::map<std::string, Worker> workers_;  // By peer.
  Micros ticked_at_ = 0;
};

}  // namespace tessera::coordinator
