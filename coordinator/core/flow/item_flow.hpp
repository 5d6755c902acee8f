#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "coordinator/core/events/events.hpp"
#include "coordinator/core/flow/cache.hpp"
#include "coordinator/core/flow/cache_gate.hpp"
#include "coordinator/core/flow/results.hpp"
#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/embedding.hpp"
#include "coordinator/core/items/ids.hpp"
#include "coordinator/core/items/resolved_spec.hpp"
#include "coordinator/core/items/served_model.hpp"
#include "coordinator/core/scheduling/dispatcher.hpp"
#include "coordinator/core/scheduling/flight.hpp"
#include "coordinator/core/scheduling/part_metrics.hpp"

namespace tessera::coordinator {

// The items of one embed request or one chunk, to be embedded together.
struct Unit {
  std::shared_ptr<const ResolvedSpec> spec;
  protocol::Lane lane = protocol::Lane::kBulk;
  StreamKey stream;
  double weight = 1;
  protocol::ItemBlock items;                                 // Valid: protocol::validate.
  bool no_cache = false;                                     // Nothing is taken from the cache,
  bool no_store = false;                                     // nothing put into it.
  std::shared_ptr<const protocol::RequestTrace> trace = {};  // May be null.
};

struct FinishedUnit {
  UnitId id = 0;
  protocol::ResultBlock results;
  std::uint32_t items_failed = 0;
  std::uint64_t tokens = 0;
};

// The life of an item between ingest and result: cache, join in flight, tokenise, queue, batch,
// cache fill, fan out. Every item of a started unit gets one outcome, and a unit whose items all
// have one comes out of `take_finished` once, unless it was abandoned before.
class ItemFlow {
 public:
  ItemFlow(std::span<const ServedModel> models, Dispatcher& dispatcher, std::size_t cache_bytes)
      : models_(models),
        dispatcher_(dispatcher),
        cache_(cache_bytes),
        pending_tokens_(models.size()) {}

  // Whether units of the model can start: its fingerprint is known.
  bool can_start(ModelId model) const { return !dispatcher_.fingerprint(model).empty(); }
  // Requires can_start(unit.spec->model).
  UnitId start(Unit unit, Micros now, Actions& actions);
  // Nobody waits for the unit any more. What a worker computes already still fills the cache.
  void abandon(UnitId id);

  void on_cache_reply(CacheReply reply, Micros now, Actions& actions);
  // Goes on without what the second cache level does not say in time.
  void tick(Micros now, Actions& actions);
  void on_tokens(TokensReady ready, Micros now);
  // Takes over what the dispatcher has ended.
  void collect(Micros now, Actions& actions);
  std::vector<FinishedUnit> take_finished();

  // Estimated tokens of the model's distinct items that are on their way.
  std::uint64_t pending_tokens(ModelId model) const { return pending_tokens_[model]; }
  std::size_t pending_items() const { return flights_.size(); }
  std::size_t units() const { return units_.size(); }
  const CacheCounts& totals() const { return totals_; }
  std::size_t cache_bytes() const { return cache_.bytes(); }
  const FlowMetrics& metrics() const { return metrics_; }

 private:
  struct UnitInFlight {
    std::shared_ptr<const ResolvedSpec> spec;
    std::vector<Outcome> outcomes;
    std::size_t open = 0;  // Items without an outcome.
    CacheCounts counts;
    std::vector<CacheKey> keys;  // Of flights that it waits for, or has.
    protocol::Lane lane = protocol::Lane::kBulk;
    Micros started_at = 0;
  };
  // A CacheGet that has no answer yet.
  struct Lookup {
    Micros asked_at = 0;
    std::vector<Flight*> flights;
  };
  struct Starting;

  void start_text(Starting& starting, std::uint32_t index, std::string_view text);
  void start_ids(Starting& starting, std::uint32_t index, std::span<const std::byte> bytes);
  static void refuse_item(Starting& starting, std::uint32_t index, Error error);
  // With fresh items: they are not looked up.
  void go_on(Starting& starting, Micros now, Actions& actions);
  // Answers from the first level or joins a flight; true when that was possible.
  bool answer_or_join(Starting& starting, std::uint32_t index, const CacheKey& key);
  Flight* new_flight(Starting& starting, std::uint32_t index, const CacheKey& key,
                     std::uint64_t tokens_estimate);
  void look_up(std::vector<Flight*> flights, Micros now, Actions& actions);
  void go_on_without_hit(const std::vector<Flight*>& flights, Micros now, Actions& actions);
  void tokenise_or_queue(const std::vector<Flight*>& flights, Micros now, Actions& actions);
  void end_flight(Flight* flight, const EmbeddingPtr& embedding, const Error& error,
                  bool from_cache, Micros now);
  // The metrics of an item that was computed.
  void count_computed(const Flight& flight);
  void finish(UnitId id, UnitInFlight& unit);
  void count_items(const UnitInFlight& unit);

  const std::span<const ServedModel> models_;
  Dispatcher& dispatcher_;
  EmbeddingCache cache_;
  FlightTable flights_;
  std::unordered_map<UnitId, UnitInFlight> units_;
  std::map<std::uint64_t, Lookup> lookups_;  // By id of the CacheGet, so oldest first.
  CacheGate gate_;
  std::vector<FinishedUnit> finished_;
  CacheCounts totals_;
  FlowMetrics metrics_;
  UnitId next_unit_ = 1;
  std::uint64_t next_lookup_ = 1;
  std::vector<std::uint64_t> pending_tokens_;  // By ModelId.
};

}  // namespace tessera::coordinator
