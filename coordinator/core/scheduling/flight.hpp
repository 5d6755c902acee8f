#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/wire/protocol.hpp"
#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/ids.hpp"

namespace tessera::coordinator {

// Who shares the workers fairly with whom: first the tenants, then each tenant's jobs by weight.
struct StreamKey {
  std::string tenant;
  JobId job;  // Empty for a tenant's embed requests.
  bool operator==(const StreamKey&) const = default;
  auto operator<=>(const StreamKey&) const = default;
};

// The end of a worker's connection while it held items: with the process, as far as is known until
// the same process registers again.
struct WorkerLoss {
  bool survived = false;
};

// One distinct item on its way to a vector: however many units wait for it, it is computed once.
struct Flight {
  enum class Stage : std::uint8_t { kLookup, kTokenising, kWaiting, kInBatch };
  struct Waiter {
    UnitId unit = 0;
    std::uint32_t index = 0;
    bool is_first = false;  // The others joined.
  };

  CacheKey key{};
  ModelId model = 0;
  Stage stage = Stage::kLookup;
  protocol::Lane lane = protocol::Lane::kBulk;  // The most urgent of its waiters'.
  StreamKey stream;
  double weight = 1;
  protocol::Truncate truncate = protocol::Truncate::kNone;
  std::uint32_t max_tokens = 0;
  std::string text;               // Until tokenised.
  std::vector<std::int32_t> ids;  // From then on.
  std::uint32_t tokens_cut = 0;
  std::uint64_t tokens_estimate = 0;  // What it counts for in the bounds.
  std::uint32_t deaths = 0;           // Workers that died with it, counted at its last loss.
  std::vector<std::shared_ptr<const WorkerLoss>> losses;  // All, those that were no deaths too.
  std::uint64_t order = 0;                                // Of arrival; set by the scheduler.
  std::uint64_t age_class = 0;                            // Likewise.
  Micros waiting_since = 0;
  std::vector<Waiter> waiters;
  bool is_fresh = false;  // Somebody wants it computed, whatever is cached.
  bool store = false;     // Somebody allows it to be cached.
  std::shared_ptr<const protocol::RequestTrace> trace;  // Of its first waiter, where it has one.

  // When it was, and how long it took; for the metrics.
  Micros tokenize_began_at = 0;  // 0: came as token ids.
  Micros tokenized_us = 0;
  Micros queued_us = 0;  // Waiting for a worker, all tries together.
  Micros compute_us = 0;

  // Its place in the WaitingCensus, while it waits.
  struct Census {
    Micros since = 0;
    Flight* older = nullptr;
    Flight* younger = nullptr;
  };
  Census census;

  std::uint32_t length() const { return static_cast<std::uint32_t>(ids.size()); }
};

using FlightTable = std::unordered_map<CacheKey, std::unique_ptr<Flight>, CacheKeyHash>;

}  // namespace tessera::coordinator
