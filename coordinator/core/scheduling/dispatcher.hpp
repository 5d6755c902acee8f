#pragma once

#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "coordinator/core/events/events.hpp"
#include "coordinator/core/scheduling/model_identity.hpp"
#include "coordinator/core/scheduling/part_metrics.hpp"
#include "coordinator/core/scheduling/scheduler.hpp"
#include "coordinator/core/scheduling/worker_refusals.hpp"
#include "coordinator/core/scheduling/worker_registry.hpp"

namespace tessera::coordinator {

struct DispatcherOptions {
  SchedulerOptions scheduler;
  RegistryOptions registry;
  // A batch is given up, and its worker with it, after so long and ten times its expected time.
  Micros batch_us_max = 120'000'000;
  // A sequence that no live worker takes gets an error after so long.
  Micros unservable_us = 30'000'000;
  std::string ledger_id;  // Which workers are told.
};

// Between the queues of waiting sequences and the workers: registers workers, gives batches, takes
// vectors back, and takes from the dead what they held. A flight that went in with `enqueue` comes
// out once through `take_ended`, unless it is withdrawn before.
class Dispatcher {
 public:
  // A flight and how it ended: an embedding or an error.
  struct Ended {
    Flight* flight = nullptr;
    EmbeddingPtr embedding;
    Error error;
  };

  Dispatcher(std::span<const ServedModel> models, std::uint64_t epoch,
             const DispatcherOptions& options);

  // What the model's vectors are told apart by. Workers that do not fit it are refused.
  const ModelIdentity& identity(ModelId model) const { return states_[model].identity; }
  const std::string& fingerprint(ModelId model) const { return identity(model).fingerprint(); }
  // `owner` is who has vectors of it, for people: "job key of the ledger".
  void pin_fingerprint(ModelId model, const std::string& fingerprint, const std::string& owner);
  // The longest sequence to take in: the model's limit, or less if no worker so far took more.
  std::uint32_t seqlen_limit(ModelId model) const;

  void enqueue(Flight* flight, Micros now);
  // Only for flights that wait; others run to their end.
  void withdraw(Flight* flight);
  void make_interactive(Flight* flight, const StreamKey& stream);

  void on_message(const std::string& peer, protocol::Message message, Micros now, Actions& actions);
  void on_bad_message(const std::string& peer, const Error& error, Micros now, Actions& actions);
  void on_gone(const std::string& peer, Micros now);
  void tick(Micros now, Actions& actions);
  // Gives batches to free slots.
  void dispatch(Micros now, Actions& actions);
  // Gives bulk no more workers; what is in flight runs to its end.
  void stop_bulk();

  std::vector<Ended> take_ended();

  std::size_t batches_in_flight() const { return batches_.size(); }
  std::uint64_t waiting_tokens() const;
  std::uint64_t tokens_done() const { return tokens_done_; }
  // Smoothed tokens per second of all workers when they are busy; 0 before any was measured.
  double drain_rate() const;
  const WorkerRegistry& workers() const { return registry_; }
  std::vector<protocol::WorkerRefusal> refusals(Micros now) const { return refusals_.list(now); }
  // Of what waits for the model's workers.
  const WaitingCensus& waiting(ModelId model) const { return states_[model].scheduler.census(); }
  const DispatchMetrics& metrics() const { return metrics_; }

 private:
  struct ModelState {
    ModelIdentity identity;
    std::string fingerprint_owner;  // Who brought it, for people.
    std::uint32_t longest_served = 0;
    Scheduler scheduler;
  };
  struct BatchInFlight {
    std::string worker;
    ModelId model = 0;
    std::uint32_t attempt = 1;
    std::uint64_t tokens = 0;
    double stated_s = 0;  // By the worker's own cost model.
    Micros give_up_at = 0;
    Micros sent_at = 0;
    Micros queued_us = 0;  // The longest wait of its items.
    std::vector<Flight*> flights;
  };

  void on_hello(const std::string& peer, protocol::WorkerHello hello, Micros now, Actions& actions);
  void welcome_back(std::uint64_t process, Micros now);
  void on_result(const std::string& peer, protocol::BatchResult result, Micros now,
                 Actions& actions);
  Result<void> check_result(const BatchInFlight& batch, const protocol::BatchResult& result) const;
  void end_batch(const BatchInFlight& batch, const protocol::BatchResult& result);
  void count_batch(const BatchInFlight& batch, const Worker& worker, std::uint64_t compute_us,
                   Micros now);
  // To workers without a batch, or to all that take some.
  enum class Workers : std::uint8_t { kIdle, kAll };
  void fill_slots(ModelId model, Workers which, Micros now, Actions& actions);
  void overtake(ModelId model, Micros now, Actions& actions);
  enum class Turn : std::uint8_t { kOrdinary, kExpress };
  void send_batch(Worker& worker, std::vector<Flight*> flights, Turn turn, Micros now,
                  Actions& actions);
  enum class Loss : std::uint8_t {
    kConnection,  // Broken or silent: the process may live.
    kReplaced,    // By a fresh connection of the same process.
    kWorker,      // Hung or wrong: a death, whatever it says later.
  };
  void lose_worker(const std::string& peer, Loss loss, std::string_view why, Micros now);
  void lose_flight(Flight* flight, const std::shared_ptr<const WorkerLoss>& loss, Micros now);
  std::shared_ptr<const WorkerLoss> record_loss(const Worker& worker, Loss loss);
  void give_up_unservable(Micros now);
  void leave_former_fingerprints();

  const std::span<const ServedModel> models_;
  const std::uint64_t epoch_;
  const DispatcherOptions options_;
  std::vector<ModelState> states_;  // By ModelId.
  WorkerRegistry registry_;
  WorkerRefusals refusals_;
  std::unordered_map<std::uint64_t, BatchInFlight> batches_;
  // By process: the last connection of each that was lost with items which still wait.
  std::unordered_map<std::uint64_t, std::shared_ptr<WorkerLoss>> presumed_dead_;
  std::uint64_t next_batch_ = 1;
  std::uint64_t tokens_done_ = 0;
  DispatchMetrics metrics_;
  std::vector<Ended> ended_;
};

}  // namespace tessera::coordinator
