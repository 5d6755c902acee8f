#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/wire/chunk_digest.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

// What the core asks of the ledger. Each operation is one atomic, idempotent script (see
// coordinator/ledger_scripts.hpp), so that one whose answer was lost is simply run again. All but
// those that only read are refused when another coordinator has a newer term, or the ledger has
// lost what it had.
namespace tessera::coordinator::ledger {

// Creates the job, or changes nothing when it exists. Refused when another job has its id: one with
// another specification, or one that has chunks already, which the caller does not know of.
struct CreateJob {
  JobId job;
  std::string job_key;
  std::string tenant;
  std::string spec;  // encode_spec()
  std::uint32_t priority = 1;
};

// From here on the chunk's items will each have an end. Refused when the ledger has other items
// under this number.
struct AcceptChunk {
  JobId job;
  std::uint32_t chunk = 0;
  std::uint32_t items = 0;
  protocol::ChunkDigest digest{};
  protocol::Bytes content;  // journal_chunk()
};

// Whether a chunk that the ledger has is this one, which it also knows when its items and its
// result are gone. One of a ledger that kept no digests yet is taken for it.
struct CheckChunk {
  JobId job;
  std::uint32_t chunk = 0;
  protocol::ChunkDigest digest{};
};

// Puts the result in the place of the chunk's items. The first result stays. The job's vectors are
// all of one fingerprint; a job that a version before began gets the one of now in its place.
struct StoreResult {
  JobId job;
  std::uint32_t chunk = 0;
  std::uint32_t items = 0;
  std::uint32_t items_failed = 0;
  std::uint64_t tokens = 0;
  std::uint32_t cache_hits = 0;
  std::uint32_t cache_joins = 0;
  std::uint32_t cache_misses = 0;
  std::string fingerprint;
  protocol::Bytes content;  // journal_result()
};

// The client has the result: forget it.
struct AckResult {
  JobId job;
  std::uint32_t chunk = 0;
};

struct CloseJob {
  JobId job;
  std::uint32_t chunks = 0;
};

// kDone or kCancelled; drops the contents of these chunks.
struct EndJob {
  JobId job;
  protocol::JobState state = protocol::JobState::kDone;
  std::vector<std::uint32_t> chunks;
};

struct ForgetJob {
  JobId job;
  std::string job_key;
  std::string tenant;
};

struct FetchChunk {
  JobId job;
  std::uint32_t chunk = 0;
};

struct FetchResult {
  JobId job;
  std::uint32_t chunk = 0;
};

// Makes or changes the record whose version before was one less; kConflict where that is not so.
struct PutRecord {
  std::string id;
  std::string tenant;
  std::uint64_t version = 1;
  std::uint64_t order = 0;
  bool open = false;
  std::string owner;
  std::uint32_t lease_ms = 0;
  protocol::Bytes content;
};

// `version` is the one after the last, as in PutRecord. No conflict where the record is gone.
struct DropRecord {
  std::string id;
  std::uint64_t version = 1;
};

// Changes nothing: whether the caller's term still holds.
struct CheckTerm {};

using Operation =
    std::variant<CreateJob, AcceptChunk, CheckChunk, StoreResult, AckResult, CloseJob, EndJob,
                 ForgetJob, FetchChunk, FetchResult, CheckTerm, PutRecord, DropRecord>;

enum class Status : std::uint8_t {
  kDone,      // Durable; for the fetches, `content` is what was found (empty: nothing).
  kFenced,    // Another coordinator has taken over.
  kWentBack,  // The ledger has lost what it had answered: it is empty, or an older copy of itself.
  kConflict,  // CreateJob: another job has the id. AcceptChunk, CheckChunk: other items are there.
              // PutRecord, DropRecord: another version.
  kMissing,   // CheckChunk: the ledger does not have the chunk.
  kFailed,    // The server refused (out of memory, disk full); `message` says why.
};

struct Reply {
  Status status = Status::kDone;
  std::string message;
  protocol::Bytes content;
  std::uint64_t sequence = 0;  // Of the ledger's last change, if it said so.
};

// What each operation of a leader is compared with in the ledger, all together: whose ledger it is,
// who leads it, and that it still has everything that it has answered.
struct Term {
  std::string ledger_id;
  std::uint64_t number = 1;
  std::uint64_t sequence = 0;  // The highest that the ledger has answered.
};

// A job as found in the ledger at start.
struct StoredJob {
  JobId job;
  std::string job_key;
  std::string tenant;
  std::string spec;
  std::string fingerprint;
  std::uint32_t priority = 1;
  protocol::JobState state = protocol::JobState::kOpen;
  bool closed = false;
  std::uint32_t chunks_total = 0;
  std::uint64_t items_accepted = 0;
  std::uint64_t items_done = 0;
  std::uint64_t items_failed = 0;
  std::uint64_t tokens_done = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_joins = 0;
  std::uint64_t cache_misses = 0;
  protocol::Bytes accepted;  // bitmaps, as RangeSet::from_bitmap reads them
  protocol::Bytes done;
  protocol::Bytes delivered;
};

// A record as found in the ledger at start.
using StoredRecord = PutRecord;

// What a coordinator finds when it starts.
struct Stored {
  std::vector<StoredJob> jobs;
  std::vector<StoredRecord> records;
};

// Same tenant and key give the same id, in every term: 32 hex digits of a hash over both.
JobId job_id_of(std::string_view tenant, std::string_view job_key);

// The forms in which messages lie in the ledger: the codec's two frames, the first one preceded by
// its length. Reading checks like a message from outside.
struct JobSpec {
  protocol::EmbedSpec embed;
  std::uint32_t chunk_items = 0;  // As in OpenJob.
};
std::string encode_spec(const protocol::EmbedSpec& spec, std::uint32_t chunk_items = 0);
Result<JobSpec> decode_spec(std::string_view bytes);
protocol::Bytes journal_chunk(const protocol::SubmitChunk& chunk);
Result<protocol::SubmitChunk> read_chunk(std::span<const std::byte> content);
protocol::Bytes journal_result(const protocol::ChunkResult& result);
Result<protocol::ChunkResult> read_result(std::span<const std::byte> content);

}  // namespace tessera::coordinator::ledger
