#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/wire/codec_origin.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/embedding.hpp"
#include "coordinator/core/items/ids.hpp"
#include "coordinator/core/items/prepared_ids.hpp"
#include "coordinator/core/ledger/ledger.hpp"

// What goes into the core's state machine and what comes out of it. Plumbing turns sockets, Redis,
// threads and the clock into events and carries the actions out, in order.
namespace tessera::coordinator {

// events

struct FromClient {
  std::string peer;  // Routing id.
  protocol::Message message;
};
struct FromWorker {
  std::string peer;
  protocol::Message message;
};
// A message that could not be decoded.
struct BadFromClient {
  std::string peer;
  Error error;
  protocol::Origin origin;
};
struct BadFromWorker {
  std::string peer;
  Error error;
};
// A send found nobody there, or a peer that does not read.
struct ClientGone {
  std::string peer;
};
struct WorkerGone {
  std::string peer;
};
struct LedgerReply {
  std::uint64_t id = 0;
  ledger::Reply reply;
  std::size_t operation = 0;  // Index in ledger::Operation,
  Micros took_us = 0;         // and how long it took: both for the metrics.
};
// Whether the ledger's server can be reached. While it cannot, operations wait and nothing new is
// taken in.
struct LedgerState {
  bool up = true;
};
// In the order of the keys of the CacheGet; nothing for a miss. All misses when the cache failed.
// One that comes late finds nobody waiting.
struct CacheReply {
  std::uint64_t id = 0;
  std::vector<std::optional<protocol::Bytes>> values;
  Micros took_us = 0;  // For the metrics.
};
struct TokenisedItem {
  CacheKey key{};
  Result<PreparedIds> ids = PreparedIds{};
};
struct TokensReady {
  std::vector<TokenisedItem> items;
  Micros busy_us = 0;  // That a thread worked on them; for the metrics.
};
// About every 50 ms, and at once when Core::has_backlog().
struct Tick {};
// Finish what is in flight, take nothing new.
struct StopRequested {};

using Event =
    std::variant<FromClient, FromWorker, BadFromClient, BadFromWorker, ClientGone, WorkerGone,
                 LedgerReply, LedgerState, CacheReply, TokensReady, Tick, StopRequested>;

// actions

struct SendClient {
  std::string peer;
  protocol::Message message;
};
struct SendWorker {
  std::string peer;
  protocol::Message message;
};
struct RunLedger {
  std::uint64_t id = 0;
  ledger::Operation operation;
};
struct CacheGet {
  std::uint64_t id = 0;
  std::vector<CacheKey> keys;  // At most kCacheKeysPerGet.
};
struct CachePut {
  std::vector<std::pair<CacheKey, EmbeddingPtr>> entries;
};
struct TextToTokenise {
  CacheKey key{};
  std::string text;
};
struct Tokenise {
  ModelId model = 0;
  protocol::Lane lane = protocol::Lane::kBulk;
  protocol::Truncate truncate = protocol::Truncate::kNone;
  std::uint32_t max_tokens = 0;
  std::vector<TextToTokenise> texts;
};
// The process shall end: all is drained, or, with an error, it may not go on.
struct Stop {
  std::string error;
};

// The ledger is not what this term was begun on: a new one shall begin on what it has now, with a
// core of its own.
struct BeginTerm {
  std::uint64_t above = 0;  // The number of every term that is known.
  std::string why;
};

using Action =
    std::variant<SendClient, SendWorker, RunLedger, CacheGet, CachePut, Tokenise, Stop, BeginTerm>;
using Actions = std::vector<Action>;

// Beyond this, an MGET only makes others wait behind it (measured).
inline constexpr std::size_t kCacheKeysPerGet = 64;

}  // namespace tessera::coordinator
