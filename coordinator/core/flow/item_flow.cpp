#include "coordinator/core/flow/item_flow.hpp"

#include <algorithm>

#include "common/check.hpp"
#include "coordinator/core/items/blank_text.hpp"
#include "coordinator/core/items/key_hasher.hpp"
#include "coordinator/core/items/prepared_ids.hpp"

namespace tessera::coordinator {
namespace {

// Only for bounds and fair shares until the true count is known.
constexpr std::size_t kBytesPerTokenGuess = 4;

}  // namespace

// A unit whose items are being looked at for the first time.
struct ItemFlow::Starting {
  const Unit& unit;
  UnitId id;
  UnitInFlight& state;
  KeyHasher hasher;
  std::uint32_t max_tokens;
  std::vector<Flight*> lookups = {};
};

UnitId ItemFlow::start(Unit unit, Micros now, Actions& actions) {
  const ResolvedSpec& spec = *unit.spec;
  CHECK(can_start(spec.model));
  const UnitId id = next_unit_++;
  UnitInFlight& state = units_[id];
  state.spec = unit.spec;
  state.outcomes.resize(unit.items.sizes.size());
  state.open = unit.items.sizes.size();
  state.lane = unit.lane;
  state.started_at = now;
  const std::uint32_t limit = dispatcher_.seqlen_limit(spec.model);
  const std::uint32_t max_tokens = spec.max_tokens == 0 ? limit : std::min(limit, spec.max_tokens);
  // Without truncation a limit only decides between a vector and an error, so a limit that comes
  // from the workers is no part of the vector's identity.
  const std::uint32_t key_tokens =
      spec.truncate == protocol::Truncate::kNone ? spec.max_tokens : max_tokens;
  Starting starting{.unit = unit,
                    .id = id,
                    .state = state,
                    .hasher = KeyHasher(dispatcher_.fingerprint(spec.model), spec, key_tokens),
                    .max_tokens = max_tokens};
  std::size_t offset = 0;
  const std::span<const std::byte> payload = unit.items.payload;
  for (std::uint32_t i = 0; i < unit.items.sizes.size(); ++i) {
    const auto bytes = payload.subspan(offset, unit.items.sizes[i]);
    offset += bytes.size();
    const bool is_ids =
        !unit.items.kinds.empty() &&
        unit.items.kinds[i] == static_cast<std::uint8_t>(protocol::ItemKind::kTokenIds);
    if (is_ids) {
      start_ids(starting, i, bytes);
    } else {
      start_text(starting, i, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
  }
  go_on(starting, now, actions);
  if (state.open == 0) {
    finish(id, state);
  }
  return id;
}

void ItemFlow::go_on(Starting& starting, Micros now, Actions& actions) {
  if (starting.unit.no_cache) {
    tokenise_or_queue(starting.lookups, now, actions);
  } else {
    look_up(std::move(starting.lookups), now, actions);
  }
}

bool ItemFlow::answer_or_join(Starting& starting, std::uint32_t index, const CacheKey& key) {
  UnitInFlight& state = starting.state;
  EmbeddingPtr hit = starting.unit.no_cache ? nullptr : cache_.find(key, starting.unit.lane);
  if (hit != nullptr) {
    state.outcomes[index].embedding = std::move(hit);
    state.outcomes[index].source = protocol::ItemSource::kMemoryHit;
    metrics_.total.count(starting.unit.lane, 0);  // Within this step.
    --state.open;
    ++state.counts.hits;
    return true;
  }
  const auto found = flights_.find(key);
  if (found == flights_.end()) {
    return false;
  }
  Flight& flight = *found->second;
  flight.waiters.push_back({.unit = starting.id, .index = index});
  // What is being looked up must not be answered from the cache any more.
  flight.is_fresh |= starting.unit.no_cache;
  flight.store |= !starting.unit.no_store;
  state.keys.push_back(key);
  ++state.counts.joins;
  if (starting.unit.lane == protocol::Lane::kInteractive && flight.lane == protocol::Lane::kBulk) {
    dispatcher_.make_interactive(&flight, starting.unit.stream);
  }
  return true;
}

Flight* ItemFlow::new_flight(Starting& starting, std::uint32_t index, const CacheKey& key,
                             std::uint64_t tokens_estimate) {
  auto flight = std::make_unique<Flight>();
  flight->key = key;
  flight->model = starting.unit.spec->model;
  flight->lane = starting.unit.lane;
  flight->stream = starting.unit.stream;
  flight->weight = starting.unit.weight;
  flight->truncate = starting.unit.spec->truncate;
  flight->max_tokens = starting.max_tokens;
  flight->tokens_estimate = tokens_estimate;
  flight->is_fresh = starting.unit.no_cache;
  flight->store = !starting.unit.no_store;
  flight->trace = starting.unit.trace;
  flight->waiters.push_back({.unit = starting.id, .index = index, .is_first = true});
  pending_tokens_[flight->model] += tokens_estimate;
  starting.state.keys.push_back(key);
  Flight* raw = flight.get();
  flights_.emplace(key, std::move(flight));
  starting.lookups.push_back(raw);
  return raw;
}

void ItemFlow::refuse_item(Starting& starting, std::uint32_t index, Error error) {
  starting.state.outcomes[index].error = std::make_unique<Error>(std::move(error));
  --starting.state.open;
}

void ItemFlow::start_text(Starting& starting, std::uint32_t index, std::string_view text) {
  if (is_blank(text)) {
    return refuse_item(starting, index,
                       {ErrorCode::kEmptyText, "the text is empty or only white space"});
  }
  const CacheKey key = starting.hasher.text_key(text);
  if (answer_or_join(starting, index, key)) {
    return;
  }
  const std::size_t bytes = starting.unit.spec->prefix.size() + text.size();
  Flight* flight = new_flight(starting, index, key, 1 + bytes / kBytesPerTokenGuess);
  flight->text.reserve(bytes);
  flight->text.append(starting.unit.spec->prefix).append(text);
}

void ItemFlow::start_ids(Starting& starting, std::uint32_t index,
                         std::span<const std::byte> bytes) {
  auto prepared = prepare_ids(bytes, models_[starting.unit.spec->model],
                              starting.unit.spec->truncate, starting.max_tokens);
  if (!prepared) {
    return refuse_item(starting, index, prepared.error());
  }
  // Hashed as sent: the same ids cut by another rule are told apart by the rule.
  std::vector<std::int32_t> sent(bytes.size() / sizeof(std::int32_t));
  std::memcpy(sent.data(), bytes.data(), sent.size() * sizeof(std::int32_t));
  const CacheKey key = starting.hasher.ids_key(sent);
  if (answer_or_join(starting, index, key)) {
    return;
  }
  Flight* flight = new_flight(starting, index, key, prepared->ids.size());
  flight->ids = std::move(prepared->ids);
  flight->tokens_cut = prepared->tokens_cut;
}

void ItemFlow::look_up(std::vector<Flight*> flights, Micros now, Actions& actions) {
  for (std::size_t first = 0; first < flights.size(); first += kCacheKeysPerGet) {
    const std::size_t last = std::min(flights.size(), first + kCacheKeysPerGet);
    std::vector<Flight*> asked(flights.begin() + static_cast<std::ptrdiff_t>(first),
                               flights.begin() + static_cast<std::ptrdiff_t>(last));
    if (!gate_.may_ask(now)) {
      tokenise_or_queue(asked, now, actions);
      continue;
    }
    // Made in place: moving a temporary in makes g++ 12 warn of something that is not so.
    auto& get = actions.emplace_back().emplace<CacheGet>();
    get.id = next_lookup_++;
    get.keys.reserve(asked.size());
    for (const Flight* flight : asked) {
      get.keys.push_back(flight->key);
    }
    lookups_[get.id] = {.asked_at = now, .flights = std::move(asked)};
  }
}

void ItemFlow::tick(Micros now, Actions& actions) {
  for (auto it = lookups_.begin(); it != lookups_.end();) {
    const Micros waited = now - it->second.asked_at;
    if (waited < gate_.patience(protocol::Lane::kInteractive)) {
      return;  // The others are younger.
    }
    const bool is_late = std::ranges::any_of(it->second.flights, [&](const Flight* flight) {
      return waited >= gate_.patience(flight->lane);
    });
    if (!is_late) {
      ++it;
      continue;
    }
    gate_.on_late(now);
    const std::vector<Flight*> flights = std::move(it->second.flights);
    it = lookups_.erase(it);
    go_on_without_hit(flights, now, actions);
  }
}

void ItemFlow::go_on_without_hit(const std::vector<Flight*>& flights, Micros now,
                                 Actions& actions) {
  std::vector<Flight*> wanted;
  for (Flight* flight : flights) {
    if (flight->waiters.empty()) {
      end_flight(flight, nullptr, {}, false, now);  // Abandoned meanwhile.
    } else {
      wanted.push_back(flight);
    }
  }
  tokenise_or_queue(wanted, now, actions);
}

void ItemFlow::on_cache_reply(CacheReply reply, Micros now, Actions& actions) {
  const auto found = lookups_.find(reply.id);
  if (found == lookups_.end()) {
    return;  // Too late.
  }
  gate_.on_answer();
  const std::vector<Flight*> asked = std::move(found->second.flights);
  lookups_.erase(found);
  std::vector<Flight*> missing;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    Flight* flight = asked[i];
    std::optional<Embedding> hit;
    if (i < reply.values.size() && reply.values[i] && !flight->is_fresh) {
      hit = decode_cache_value(flight->key, models_[flight->model].hidden_size, *reply.values[i]);
    }
    if (hit) {
      const auto embedding = std::make_shared<const Embedding>(std::move(*hit));
      if (flight->store) {
        cache_.insert(flight->key, flight->lane, embedding);
      }
      end_flight(flight, embedding, {}, true, now);
    } else {
      missing.push_back(flight);
    }
  }
  go_on_without_hit(missing, now, actions);
}

void ItemFlow::tokenise_or_queue(const std::vector<Flight*>& flights, Micros now,
                                 Actions& actions) {
  Tokenise* work = nullptr;  // The last action, once there is one.
  for (Flight* flight : flights) {
    if (!flight->ids.empty()) {
      dispatcher_.enqueue(flight, now);
      continue;
    }
    if (work == nullptr || flight->model != work->model || flight->lane != work->lane ||
        flight->truncate != work->truncate || flight->max_tokens != work->max_tokens) {
      work = &actions.emplace_back().emplace<Tokenise>(Tokenise{.model = flight->model,
                                                                .lane = flight->lane,
                                                                .truncate = flight->truncate,
                                                                .max_tokens = flight->max_tokens});
    }
    work->texts.push_back({.key = flight->key, .text = std::exchange(flight->text, {})});
    flight->stage = Flight::Stage::kTokenising;
    flight->tokenize_began_at = now;
  }
}

void ItemFlow::on_tokens(TokensReady ready, Micros now) {
  for (TokenisedItem& item : ready.items) {
    const auto found = flights_.find(item.key);
    if (found == flights_.end() || found->second->stage != Flight::Stage::kTokenising) {
      continue;
    }
    Flight* flight = found->second.get();
    if (!item.ids) {
      end_flight(flight, nullptr, item.ids.error(), false, now);
      continue;
    }
    if (flight->waiters.empty()) {
      end_flight(flight, nullptr, {}, false, now);
      continue;
    }
    flight->ids = std::move(item.ids->ids);
    flight->tokens_cut = item.ids->tokens_cut;
    flight->tokenized_us = now - flight->tokenize_began_at;
    dispatcher_.enqueue(flight, now);
  }
}

void ItemFlow::collect(Micros now, Actions& actions) {
  CachePut put;
  for (Dispatcher::Ended& ended : dispatcher_.take_ended()) {
    if (ended.embedding != nullptr) {
      count_computed(*ended.flight);
    }
    if (ended.embedding != nullptr && ended.flight->store) {
      cache_.insert(ended.flight->key, ended.flight->lane, ended.embedding);
      put.entries.emplace_back(ended.flight->key, ended.embedding);
    }
    end_flight(ended.flight, ended.embedding, ended.error, false, now);
  }
  if (!put.entries.empty() && gate_.is_open()) {
    actions.push_back(std::move(put));
  }
}

void ItemFlow::count_computed(const Flight& flight) {
  if (flight.tokenize_began_at != 0) {
    metrics_.tokenize.count(flight.lane, flight.tokenized_us);
  }
  metrics_.queue.count(flight.lane, flight.queued_us);
  metrics_.compute.count(flight.lane, flight.compute_us);
}

void ItemFlow::end_flight(Flight* flight, const EmbeddingPtr& embedding, const Error& error,
                          bool from_cache, Micros now) {
  using protocol::ItemSource;
  const ItemSource first = from_cache ? ItemSource::kStorageHit : ItemSource::kComputed;
  for (const Flight::Waiter& waiter : flight->waiters) {
    const auto found = units_.find(waiter.unit);
    CHECK(found != units_.end());
    UnitInFlight& unit = found->second;
    Outcome& outcome = unit.outcomes[waiter.index];
    CHECK(!outcome.ended());
    if (embedding != nullptr) {
      outcome.embedding = embedding;
      outcome.source = waiter.is_first ? first : ItemSource::kJoined;
    } else {
      outcome.error = std::make_unique<Error>(error);
    }
    if (waiter.is_first) {
      ++(from_cache ? unit.counts.hits : unit.counts.misses);
    }
    metrics_.total.count(unit.lane, now - unit.started_at);
    if (--unit.open == 0) {
      finish(waiter.unit, unit);
    }
  }
  pending_tokens_[flight->model] -= flight->tokens_estimate;
  flights_.erase(CacheKey(flight->key));
}

void ItemFlow::finish(UnitId id, UnitInFlight& unit) {
  FinishedUnit finished{.id = id, .results = assemble(unit.outcomes, *unit.spec, unit.counts)};
  for (const Outcome& outcome : unit.outcomes) {
    finished.items_failed += outcome.error != nullptr ? 1 : 0;
    finished.tokens += outcome.embedding != nullptr ? outcome.embedding->tokens : 0;
  }
  count_items(unit);
  totals_ += unit.counts;
  finished_.push_back(std::move(finished));
  units_.erase(id);
}

void ItemFlow::count_items(const UnitInFlight& unit) {
  auto& items = metrics_.items[index_of(unit.lane)];
  auto& tokens = metrics_.tokens[index_of(unit.lane)];
  for (const Outcome& outcome : unit.outcomes) {
    ++items[index_of(outcome.source)];
    if (outcome.error != nullptr) {
      ++metrics_.errors[index_of(outcome.error->code)];
    } else {
      tokens[index_of(outcome.source)] += outcome.embedding->tokens;
    }
  }
}

void ItemFlow::abandon(UnitId id) {
  const auto found = units_.find(id);
  if (found == units_.end()) {
    return;
  }
  for (const CacheKey& key : found->second.keys) {
    const auto entry = flights_.find(key);
    if (entry == flights_.end()) {
      continue;
    }
    Flight* flight = entry->second.get();
    std::erase_if(flight->waiters, [&](const Flight::Waiter& w) { return w.unit == id; });
    if (flight->waiters.empty() && flight->stage == Flight::Stage::kWaiting) {
      dispatcher_.withdraw(flight);
      pending_tokens_[flight->model] -= flight->tokens_estimate;
      flights_.erase(entry);
    }
  }
  units_.erase(found);
}

std::vector<FinishedUnit> ItemFlow::take_finished() { return std::exchange(finished_, {}); }

}  // namespace tessera::coordinator
