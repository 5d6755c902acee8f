#include "coordinator/core/scheduling/worker_registry.hpp"

#include <algorithm>
#include <cmath>

#include "common/check.hpp"
#include "common/histogram.hpp"
#include "coordinator/core/items/served_model.hpp"
#include "coordinator/core/scheduling/model_identity.hpp"

namespace tessera::coordinator {
namespace {

constexpr Micros kSampleUs = 1'000'000;
constexpr Micros kAwayUs = 1'000'000;  // Ticks come about every 50 ms.
constexpr double kSampleWeight = 0.3;
constexpr std::uint32_t kSlotsMax = 16;
constexpr std::uint32_t kBatchTokensMax = 4U << 20;     // 16 MiB of ids in one message
constexpr std::uint32_t kBatchSequencesMax = 1U << 16;  // 256 KiB of lengths in a header
constexpr double kCostMaxS = 3600;                      // Of a batch, or of a token; nobody waits.

bool usable(double seconds) { return seconds >= 0 && seconds <= kCostMaxS; }

}  // namespace

Result<void> WorkerRegistry::check(const protocol::WorkerHello& hello, const ServedModel& model) {
  const auto refuse = [](std::string why) { return Error{ErrorCode::kInvalidArgument, why}; };
  if (hello.tokenizer_hash != model.tokenizer_hash) {
    return refuse("the worker's tokenizer.json differs from the coordinator's for model " +
                  model.name);
  }
  if (hello.hidden_size != model.hidden_size || hello.vocab_size != model.vocab_size) {
    return refuse("hidden_size or vocab_size differ from the coordinator's for model " +
                  model.name);
  }
  const auto is_fingerprint = [](const std::string& text) { return text.size() == 64; };
  if (!is_fingerprint(own_fingerprint(hello)) ||
      (!hello.former_fingerprint.empty() && !is_fingerprint(hello.former_fingerprint))) {
    return refuse("the fingerprint must have 64 hexadecimal digits");
  }
  if (hello.term_seen > kTermMax) {
    return refuse("the worker's term of the ledger is out of range");
  }
  if (hello.max_batch_tokens == 0 || hello.max_batch_tokens > kBatchTokensMax ||
      hello.max_batch_sequences == 0 || hello.max_seqlen < 2 || hello.slots == 0 ||
      hello.slots > kSlotsMax) {
    return refuse("a batch limit of the worker is out of range");
  }
  if (!usable(hello.cost_s) || !usable(hello.cost_s_per_token) ||
      !usable(hello.cost_s_per_token2)) {
    return refuse("the worker's cost model is not within 0 to 3600 s");
  }
  return {};
}

Worker& WorkerRegistry::add(const std::string& peer, protocol::WorkerHello hello, ModelId model,
                            Micros now) {
  // A batch's vectors must fit a payload, its lengths a header.
  const auto fitting =
      static_cast<std::uint32_t>(protocol::kPayloadBytesMax / (std::size_t{hello.hidden_size} * 2));
  hello.max_batch_sequences = std::min({hello.max_batch_sequences, fitting, kBatchSequencesMax});
  auto [it, is_new] = workers_.try_emplace(peer);
  CHECK(is_new);
  Worker& worker = it->second;
  worker.peer = peer;
  worker.hello = std::move(hello);
  worker.model = model;
  worker.heard_at = worker.pinged_at = worker.sampled_at = now;
  return worker;
}

Worker* WorkerRegistry::find(const std::string& peer) {
  const auto found = workers_.find(peer);
  return found == workers_.end() ? nullptr : &found->second;
}

const Worker* WorkerRegistry::find_process(std::uint64_t process) const {
  const auto found = std::ranges::find_if(
      workers_, [&](const auto& entry) { return entry.second.hello.process == process; });
  return found == workers_.end() ? nullptr : &found->second;
}

void WorkerRegistry::heard(const std::string& peer, Micros now) {
  if (Worker* worker = find(peer)) {
    worker->heard_at = now;
  }
}

void WorkerRegistry::on_metrics(Worker& worker, protocol::WorkerMetrics metrics) {
  const bool finite = std::isfinite(metrics.tokens_per_second) &&
                      std::isfinite(metrics.peak_tokens_per_second) &&
                      std::isfinite(metrics.busy_share) && std::isfinite(metrics.temperature_c);
  if (finite && is_valid(metrics.batch_seconds) && is_valid(metrics.item_seconds) &&
      is_valid(metrics.batch_fill)) {
    worker.metrics = std::move(metrics);
  }
}

WorkerRegistry::Due WorkerRegistry::tick(Micros now) {
  Due due;
  const Micros away_us = ticked_at_ == 0 ? 0 : now - ticked_at_;
  const bool was_away = away_us >= std::max(options_.heartbeat_us, kAwayUs);
  ticked_at_ = now;
  for (auto& [peer, worker] : workers_) {
    if (was_away) {
      worker.heard_at = std::min(now, worker.heard_at + away_us);
    }
    if (now - worker.sampled_at >= kSampleUs) {
      const double rate = static_cast<double>(worker.tokens_done - worker.tokens_at_sample) * 1e6 /
                          static_cast<double>(now - worker.sampled_at);
      worker.tokens_per_second += kSampleWeight * (rate - worker.tokens_per_second);
      if (rate > 0 || !worker.batches.empty()) {
        const double weight = worker.drain_rate == 0 ? 1 : kSampleWeight;
        worker.drain_rate += weight * (rate - worker.drain_rate);
      }
      worker.tokens_at_sample = worker.tokens_done;
      worker.sampled_at = now;
    }
    const Micros silent_us = now - worker.heard_at;
    if (silent_us >= options_.heartbeat_us * options_.missed_heartbeats_max) {
      due.dead.push_back(peer);
    } else if (silent_us >= options_.heartbeat_us &&
               now - worker.pinged_at >= options_.heartbeat_us) {
      worker.pinged_at = now;
      due.to_ping.push_back(peer);
    }
  }
  return due;
}

template <typename Takes>
Worker* WorkerRegistry::least_loaded(ModelId model, Takes takes) {
  Worker* best = nullptr;
  for (auto& [peer, worker] : workers_) {
    if (worker.model == model && takes(worker) &&
        (best == nullptr || worker.in_slots() < best->in_slots())) {
      best = &worker;
    }
  }
  return best;
}

Worker* WorkerRegistry::next_free(ModelId model, const std::vector<const Worker*>& skip) {
  return least_loaded(model, [&](const Worker& worker) {
    return worker.takes_work() && !std::ranges::count(skip, &worker);
  });
}

Worker* WorkerRegistry::next_express(ModelId model) {
  return least_loaded(model, [](const Worker& worker) { return worker.takes_express(); });
}

WorkerCapacity WorkerRegistry::capacity(const Worker& worker) const {
  const protocol::WorkerHello& hello = worker.hello;
  const double factor = worker.cost_correction.factor();
  WorkerCapacity capacity{
      .max_batch_tokens = hello.max_batch_tokens,
      .max_batch_sequences = hello.max_batch_sequences,
      .max_seqlen = hello.max_seqlen,
      .express_tokens = std::min(hello.express_tokens, hello.max_batch_tokens),
      .preferred = {.min = hello.preferred_seqlen_min, .max = hello.preferred_seqlen_max},
      .cost = {.fixed_s = factor * hello.cost_s,
               .per_token_s = factor * hello.cost_s_per_token,
               .per_square_s = factor * hello.cost_s_per_token2},
      .batches_in_flight = static_cast<std::uint32_t>(worker.batches.size()),
      .free_slots_of_model = 0};
  for (const auto& [peer, other] : workers_) {
    if (other.model == worker.model) {
      capacity.free_slots_of_model += other.free_slots();
    }
  }
  capacity.free_slots_of_model = std::max(capacity.free_slots_of_model, 1U);
  return capacity;
}

std::uint32_t WorkerRegistry::count(ModelId model) const {
  return static_cast<std::uint32_t>(
      std::ranges::count_if(workers_, [&](const auto& w) { return w.second.model == model; }));
}

std::uint32_t WorkerRegistry::max_seqlen(ModelId model) const {
  std::uint32_t longest = 0;
  for (const auto& [peer, worker] : workers_) {
    if (worker.model == model && !worker.leaving) {
      longest = std::max(longest, std::min(worker.hello.max_seqlen, worker.hello.max_batch_tokens));
    }
  }
  return longest;
}

std::string WorkerRegistry::number_format(ModelId model) const {
  for (const auto& [peer, worker] : workers_) {
    if (worker.model == model && !worker.hello.number_format.empty()) {
      return worker.hello.number_format;
    }
  }
  return {};
}

std::uint64_t WorkerRegistry::batch_tokens(ModelId model) const {
  std::uint64_t tokens = 0;
  for (const auto& [peer, worker] : workers_) {
    if (worker.model == model && !worker.leaving) {
      tokens += worker.hello.max_batch_tokens;
    }
  }
  return tokens;
}

}  // namespace tessera::coordinator
