#include "coordinator/core/scheduling/scheduler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check.hpp"
#include "coordinator/core/scheduling/part_metrics.hpp"

namespace tessera::coordinator {
namespace {

constexpr double kFixedCostShareInverse = 4;  // fixed : variable = 1 : 4
constexpr std::uint32_t kEfficientTokensMin = 256;

}  // namespace

std::uint32_t WorkerCapacity::efficient_tokens() const {
  double tokens = kEfficientTokensMin;
  if (cost.per_token_s > 0) {
    tokens = std::max(tokens, kFixedCostShareInverse * cost.fixed_s / cost.per_token_s);
  }
  return static_cast<std::uint32_t>(std::min<double>(tokens, max_batch_tokens));
}

// A batch in the making.
struct Scheduler::Filling {
  const WorkerCapacity& worker;
  std::uint32_t tokens_max = 0;
  double seconds_max = std::numeric_limits<double>::infinity();
  std::vector<Flight*> flights = {};
  std::uint32_t tokens = 0;
  double sum_of_squares = 0;

  // The longest sequence that may still come; 0 when the batch is full.
  std::uint32_t room() const {
    if (flights.size() >= worker.max_batch_sequences || tokens >= worker.max_batch_tokens) {
      return 0;
    }
    const std::uint32_t hard = std::min(worker.max_seqlen, worker.max_batch_tokens - tokens);
    if (flights.empty()) {
      return hard;  // A first sequence goes whatever it costs, or it would never go.
    }
    if (tokens >= tokens_max || worker.cost.seconds(tokens, sum_of_squares) >= seconds_max) {
      return 0;
    }
    return std::min(hard, tokens_max - tokens);
  }
  void take(Flight* flight) {
    tokens += flight->length();
    sum_of_squares += static_cast<double>(flight->length()) * flight->length();
    flights.push_back(flight);
  }
};

FairLane& Scheduler::lane_of(const Flight& flight) {
  return flight.lane == protocol::Lane::kInteractive ? interactive_ : bulk_;
}

void Scheduler::add(Flight* flight, Micros now) {
  CHECK(!flight->ids.empty());
  flight->stage = Flight::Stage::kWaiting;
  flight->order = next_order_++;
  flight->waiting_since = now;
  if (flight->lane == protocol::Lane::kBulk && bulk_.empty()) {
    bulk_served_at_ = now;
  }
  latest_ = now;
  lane_of(*flight).add(flight);
  census_.add(flight, now);
}

void Scheduler::leave(Flight* flight) {
  flight->stage = Flight::Stage::kInBatch;
  census_.remove(flight);
}

void Scheduler::take(Filling& batch, Flight* flight) {
  leave(flight);
  batch.take(flight);
}

void Scheduler::add_again(Flight* flight, Micros now) {
  flight->stage = Flight::Stage::kWaiting;
  flight->waiting_since = now;
  latest_ = std::max(latest_, now);
  census_.add(flight, latest_);
  if (runs_alone(*flight)) {
    alone_.push_back(flight);
  } else {
    again_[index_of(flight->lane)].push_back(flight);
  }
}

void Scheduler::remove(Flight* flight) {
  CHECK(flight->stage == Flight::Stage::kWaiting);
  census_.remove(flight);
  if (flight->losses.empty()) {
    lane_of(*flight).remove(flight);
  } else if (runs_alone(*flight)) {
    std::erase(alone_, flight);
  } else {
    std::erase(again_[index_of(flight->lane)], flight);
  }
}

void Scheduler::make_interactive(Flight* flight, const StreamKey& stream) {
  const bool waits = flight->stage == Flight::Stage::kWaiting;
  if (waits) {
    remove(flight);
  }
  flight->lane = protocol::Lane::kInteractive;
  flight->stream = stream;
  flight->weight = 1;
  if (!waits) {
    return;
  }
  if (flight->losses.empty()) {
    interactive_.add(flight);
    census_.add(flight, latest_);
  } else {
    add_again(flight, flight->waiting_since);
  }
}

Flight* Scheduler::take_again(Filling& batch, protocol::Lane lane, std::uint32_t shortest) {
  auto& waiting = again_[index_of(lane)];
  const std::uint32_t room = batch.room();
  const auto fits = std::ranges::find_if(
      waiting, [&](const Flight* f) { return f->length() >= shortest && f->length() <= room; });
  if (fits == waiting.end()) {
    return nullptr;
  }
  Flight* flight = *fits;
  waiting.erase(fits);
  return flight;
}

void Scheduler::fill_fair(Filling& batch, protocol::Lane lane, const LengthWindow& window) {
  FairLane& queue = lane == protocol::Lane::kInteractive ? interactive_ : bulk_;
  while (!queue.empty()) {
    const std::uint32_t longest = std::min(window.max, batch.room());
    if (longest < window.min || longest == 0) {
      return;
    }
    Flight* flight = queue.take({.min = window.min, .max = longest});
    if (flight == nullptr) {
      return;
    }
    take(batch, flight);
  }
}

void Scheduler::fill(Filling& batch, protocol::Lane lane, std::uint32_t shortest) {
  if (bulk_stopped_ && lane == protocol::Lane::kBulk) {
    return;
  }
  while (Flight* flight = take_again(batch, lane, shortest)) {
    take(batch, flight);
  }
  const LengthWindow any{.min = shortest, .max = std::numeric_limits<std::uint32_t>::max()};
  if (batch.worker.preferred.max == 0) {
    fill_fair(batch, lane, any);
    return;
  }
  fill_fair(
      batch, lane,
      {.min = std::max(shortest, batch.worker.preferred.min), .max = batch.worker.preferred.max});
  // Lengths that others are better at: only so that this worker does not idle.
  if (batch.flights.empty() && batch.worker.batches_in_flight == 0) {
    fill_fair(batch, lane, any);
  }
}

bool Scheduler::has_queries() const {
  return !interactive_.empty() || !again_[index_of(protocol::Lane::kInteractive)].empty();
}

// Shorter ones are left to the next express batch, which starts sooner, unless there are more than
// it holds.
std::uint32_t Scheduler::shortest_query_for(const WorkerCapacity& worker) const {
  const bool overtakes = worker.express_tokens > 0 && worker.batches_in_flight > 0;
  return overtakes && interactive_.tokens() <= worker.express_tokens ? worker.express_tokens + 1
                                                                     : 0;
}

std::vector<Flight*> Scheduler::pick_express(const WorkerCapacity& worker, Micros now) {
  latest_ = now;
  WorkerCapacity express = worker;
  express.max_batch_tokens = worker.express_tokens;
  express.preferred = {};
  Filling batch{.worker = express, .tokens_max = express.max_batch_tokens};
  fill(batch, protocol::Lane::kInteractive);
  if (!batch.flights.empty()) {
    query_served_at_ = now;
  }
  return std::move(batch.flights);
}

bool Scheduler::bulk_is_due(Micros now) const {
  const bool waits = !bulk_.empty() || !again_[index_of(protocol::Lane::kBulk)].empty();
  return waits && now - bulk_served_at_ >= options_.bulk_wait_us_max;
}

bool Scheduler::is_quiet(Micros now) const {
  return !has_queries() && (!query_served_at_ || now - *query_served_at_ >= options_.quiet_us);
}

std::uint32_t Scheduler::bulk_tokens_for(const WorkerCapacity& worker) const {
  // What waits is shared among the free slots, so that no worker idles while another has all.
  const std::uint64_t share =
      (waiting_tokens() + worker.free_slots_of_model - 1) / worker.free_slots_of_model;
  const std::uint64_t wanted = std::max<std::uint64_t>(share, worker.efficient_tokens());
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, worker.max_batch_tokens));
}

std::vector<Flight*> Scheduler::pick(const WorkerCapacity& worker, Micros now) {
  latest_ = now;
  if (!alone_.empty() && worker.batches_in_flight == 0 &&
      alone_.front()->length() <= std::min(worker.max_seqlen, worker.max_batch_tokens)) {
    Flight* flight = alone_.front();
    alone_.pop_front();
    leave(flight);
    return {flight};
  }
  const bool bulk_first = bulk_is_due(now);
  const std::uint32_t shortest_query = shortest_query_for(worker);
  Filling batch{.worker = worker, .tokens_max = worker.max_batch_tokens};
  if (!bulk_first) {
    fill(batch, protocol::Lane::kInteractive, shortest_query);
  }
  const bool has_queries = !batch.flights.empty();
  const std::size_t queries = batch.flights.size();
  if (has_queries) {
    query_served_at_ = now;
  }
  const double efficient = worker.cost.seconds(worker.efficient_tokens(), 0);
  batch.tokens_max = has_queries ? worker.efficient_tokens() : bulk_tokens_for(worker);
  const bool nobody_waits = is_quiet(now) || worker.express_tokens > 0;
  batch.seconds_max = std::max(
      nobody_waits ? options_.quiet_bulk_batch_s_max : options_.bulk_batch_s_max, efficient);
  fill(batch, protocol::Lane::kBulk);
  if (batch.flights.size() > queries) {
    bulk_served_at_ = now;
  } else if (bulk_first) {
    batch.tokens_max = worker.max_batch_tokens;
    fill(batch, protocol::Lane::kInteractive, shortest_query);
    if (!batch.flights.empty()) {
      query_served_at_ = now;
    }
  }
  return std::move(batch.flights);
}

std::vector<Flight*> Scheduler::take_unservable(std::uint32_t max_seqlen, Micros before) {
  std::vector<Flight*> taken;
  std::vector<Flight*> young;
  const LengthWindow too_long{.min = max_seqlen + 1,
                              .max = std::numeric_limits<std::uint32_t>::max()};
  for (FairLane* lane : {&interactive_, &bulk_}) {
    while (Flight* flight = lane->take(too_long)) {
      (flight->waiting_since <= before ? taken : young).push_back(flight);
    }
  }
  const auto too_long_and_old = [&](const Flight* flight) {
    return flight->length() > max_seqlen && flight->waiting_since <= before;
  };
  for (std::deque<Flight*>* waiting : {&again_[0], &again_[1], &alone_}) {
    std::ranges::copy_if(*waiting, std::back_inserter(taken), too_long_and_old);
    std::erase_if(*waiting, too_long_and_old);
  }
  for (Flight* flight : young) {
    lane_of(*flight).add(flight);
  }
  std::ranges::for_each(taken, [this](Flight* flight) { leave(flight); });
  return taken;
}

std::uint64_t Scheduler::waiting_tokens() const {
  std::uint64_t tokens = interactive_.tokens() + bulk_.tokens();
  for (const std::deque<Flight*>* waiting : {&again_[0], &again_[1], &alone_}) {
    for (const Flight* flight : *waiting) {
      tokens += flight->length();
    }
  }
  return tokens;
}

std::size_t Scheduler::waiting_items() const {
  return interactive_.items() + bulk_.items() + again_[0].size() + again_[1].size() + alone_.size();
}

}  // namespace tessera::coordinator
