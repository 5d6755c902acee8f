#pragma once

#include <array>
#include <deque>
#include <optional>
#include <vector>

#include "common/cost_model.hpp"
#include "coordinator/core/scheduling/fair_lane.hpp"
#include "coordinator/core/scheduling/waiting_census.hpp"

namespace tessera::coordinator {

struct SchedulerOptions {
  // Bulk that has had no batch for so long gets the next one, however many queries wait.
  Micros bulk_wait_us_max = 1'000'000;
  // A bulk batch is closed when it is expected to take longer, since a query may wait behind it.
  double bulk_batch_s_max = 0.1;
  // The same where no query has been given out for `quiet_us`: what is fixed in a batch's cost then
  // weighs half as much, and the first query to come waits a little longer.
  double quiet_bulk_batch_s_max = 0.2;
  Micros quiet_us = 60'000'000;
};

// What the scheduler knows of the worker that a batch is picked for.
struct WorkerCapacity {
  std::uint32_t max_batch_tokens = 0;
  std::uint32_t max_batch_sequences = 0;
  std::uint32_t max_seqlen = 0;
  std::uint32_t express_tokens = 0;  // Of a batch that overtakes its others; 0: none does.
  LengthWindow preferred;            // max 0 = no preference
  CostModel cost;
  std::uint32_t batches_in_flight = 0;
  std::uint32_t free_slots_of_model = 1;  // Of all workers of the model, this one's included.

  // Below so many tokens a batch's fixed cost weighs more than a fifth of it.
  std::uint32_t efficient_tokens() const;
};

// The sequences of one model that wait for a worker, and the rule by which a worker with a free
// slot is given a batch. Pure: no clock, no sockets. Holds views of flights; a flight is taken out
// with `pick` or `remove` before it goes.
//
// The order: 1. an item that saw two workers die, alone on a worker without other batches; 2. what
// comes back from a dead worker; 3. queries, oldest first, with bulk sequences as ballast up to the
// size where a batch's fixed cost stops to matter; 4. bulk, longest first, up to the token budget
// or the worker's share of what waits. When bulk has waited for too long, 4 goes before 3.
// A worker that has something to do and can let an express batch overtake it gets its queries that
// way, and its turns are for bulk, unless queries are too long or too many.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options = {}) : options_(options) {}

  // Requires flight->ids; sets stage, order and waiting_since.
  void add(Flight* flight, Micros now);
  // A flight whose worker died goes before the others of its lane.
  void add_again(Flight* flight, Micros now);
  void remove(Flight* flight);
  // A query has joined a waiting bulk flight.
  void make_interactive(Flight* flight, const StreamKey& stream);

  // The next batch for a worker with a free slot, or nothing. The flights are out of the queue.
  std::vector<Flight*> pick(const WorkerCapacity& worker, Micros now);
  // The next batch that may overtake what the worker has, of queries alone, or nothing.
  std::vector<Flight*> pick_express(const WorkerCapacity& worker, Micros now);
  bool has_queries() const;
  // Whether the batch that `pick` would give must run alone on its worker.
  static bool runs_alone(const Flight& flight) { return flight.deaths >= 2; }

  // Takes out what no sequence length up to `max_seqlen` covers and has waited since `before`.
  std::vector<Flight*> take_unservable(std::uint32_t max_seqlen, Micros before);

  // From now on only queries are given out.
  void stop_bulk() { bulk_stopped_ = true; }

  std::uint64_t waiting_tokens() const;
  std::size_t waiting_items() const;
  const WaitingCensus& census() const { return census_; }

 private:
  struct Filling;
  FairLane& lane_of(const Flight& flight);
  // It waits no longer: goes into a batch, or out.
  void leave(Flight* flight);
  void take(Filling& batch, Flight* flight);
  Flight* take_again(Filling& batch, protocol::Lane lane, std::uint32_t shortest);
  // With sequences of at least `shortest` tokens.
  void fill(Filling& batch, protocol::Lane lane, std::uint32_t shortest = 0);
  std::uint32_t shortest_query_for(const WorkerCapacity& worker) const;
  void fill_fair(Filling& batch, protocol::Lane lane, const LengthWindow& window);
  bool bulk_is_due(Micros now) const;
  bool is_quiet(Micros now) const;
  std::uint32_t bulk_tokens_for(const WorkerCapacity& worker) const;

  const SchedulerOptions options_;
  WaitingCensus census_;
  FairLane interactive_{true};
  FairLane bulk_{false};
  std::array<std::deque<Flight*>, 2> again_;  // By lane.
  std::deque<Flight*> alone_;
  std::uint64_t next_order_ = 1;
  bool bulk_stopped_ = false;
  Micros bulk_served_at_ = 0;  // Or when bulk began to wait.
  std::optional<Micros> query_served_at_;
  Micros latest_ = 0;  // The last moment that it was told.
};

}  // namespace tessera::coordinator
