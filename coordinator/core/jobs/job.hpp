#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/range_set.hpp"
#include "coordinator/core/items/ids.hpp"
#include "coordinator/core/items/resolved_spec.hpp"
#include "coordinator/core/items/served_model.hpp"
#include "coordinator/core/ledger/ledger.hpp"

namespace tessera::coordinator {

// A chunk between its arrival and its delivery. What is not resident lies in the ledger.
struct Chunk {
  enum class Stage : std::uint8_t {
    kJournalling,      // Becoming durable; not acknowledged yet.
    kWaiting,          // For room among the items in work; `items` when resident.
    kFetchingItems,    // Items asked of the ledger.
    kFetchItemsAgain,  // It could not give them now; tried again later, as all that end so.
    kActive,           // `unit` is in work.
    kStoring,          // `result` is becoming durable.
    kStoreAgain,       // The ledger refused.
    kReady,            // For the client; `result` when resident.
    kFetchingResult,   // Result asked of the ledger.
    kFetchResultAgain,
    kSent,    // To the job's client, not acknowledged yet.
    kAcking,  // Being forgotten in the ledger.
    kAckAgain,
  };
  Stage stage = Stage::kJournalling;
  std::uint32_t items_count = 0;
  std::string submitter;  // Who gets the ChunkAck: the client that sent it last.
  std::optional<protocol::ChunkDigest> digest;  // Of its items; the ledger has it after a restart.
  std::optional<protocol::ItemBlock> items;
  UnitId unit = 0;
  std::optional<protocol::ChunkResult> result;
  ledger::StoreResult counts;  // Of the result, without its content.
  std::size_t sent_bytes = 0;  // Of the client's credit; see JobDesk::has_credit.
  Micros again_at = 0;         // In the stages that wait for another try.

  std::size_t resident_bytes() const {
    return (items ? items->payload.size() : 0) + (result ? result->results.payload.size() : 0);
  }
};

// A producer's job as the coordinator holds it: which chunks are where, and nothing of size that
// grows with the job but ranges of numbers.
struct Job {
  JobId id;
  std::string key;
  std::string tenant;
  protocol::EmbedSpec spec;
  std::shared_ptr<const ResolvedSpec> resolved;
  std::uint32_t priority = 1;
  std::shared_ptr<const protocol::RequestTrace> trace;  // Of who opened it last; may be null.
  std::uint32_t chunk_items = 0;  // As the client said when it opened the job first; 0: not said.
  protocol::JobState state = protocol::JobState::kOpen;
  std::string fingerprint;               // Empty until its first items went into work.
  bool created = false;                  // In the ledger.
  bool end_durable = false;              // The end, in the ledger.
  bool end_refused = false;              // By the ledger;
  Micros end_again_at = 0;               // tried again then.
  std::vector<std::uint32_t> end_drops;  // Chunks whose contents go with the end.
  std::vector<std::pair<std::string, std::uint64_t>> end_waiters;  // Clients and their request ids.
  bool closed = false;
  std::uint32_t chunks_total = 0;
  std::string peer;                // The client that gets results; empty when there is none.
  std::uint64_t opener = 0;        // OpenJob::opener and
  std::uint64_t open_request = 0;  // request id of the one who has the job, or had it last.
  std::deque<std::uint64_t> openers_before;  // Who came before: none of them gets it back.
  Micros ended_at = 0;

  RangeSet accepted;
  RangeSet done;
  RangeSet delivered;
  std::map<std::uint32_t, Chunk> chunks;  // Not delivered yet: at most a window of them.
  std::uint32_t waiting = 0;              // Chunks in stage kWaiting,
  std::uint32_t ready = 0;                // in kReady,
  std::uint32_t sent = 0;                 // in kSent or about to be: kFetching- and -ResultAgain,
  std::uint32_t acking = 0;               // in kAcking or kAckAgain,
  std::uint64_t active_items = 0;         // and items of chunks in kActive or about to be.
  std::uint64_t owed_items = 0;  // Accepted or about to be, without a result in the ledger.

  std::uint64_t items_accepted = 0;
  std::uint64_t items_done = 0;
  std::uint64_t items_failed = 0;
  std::uint64_t tokens_done = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_joins = 0;
  std::uint64_t cache_misses = 0;

  bool ended() const {
    return state == protocol::JobState::kDone || state == protocol::JobState::kCancelled;
  }
  // Of the results that the ledger will have to hold for them, all being well.
  std::uint64_t owed_bytes() const { return owed_items * resolved->row_bytes(); }
  // With those of which the ledger is yet to hear: their results never come again.
  RangeSet acknowledged() const;
  bool all_delivered() const { return closed && delivered.size() == chunks_total; }
  // Keeps the counters above.
  void move(Chunk& chunk, Chunk::Stage stage);
  protocol::JobProgress progress() const;

  // A job as the ledger has it. The error is for a specification that is not served any more.
  static Result<Job> restore(const ledger::StoredJob& stored, std::span<const ServedModel> models);
};

}  // namespace tessera::coordinator
