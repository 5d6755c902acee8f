#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/result.hpp"
#include "common/wire/protocol_metrics.hpp"
#include "common/wire/protocol_records.hpp"

// Every message between clients, the coordinator and workers. A message is one or two ZeroMQ
// frames: frame 0 is the msgpack header [major version, message type, {field number: value}], frame
// 1, where a message has one, its raw payload (texts, token ids or vectors; little-endian). Unknown
// fields are ignored, missing ones keep their default, another major version is refused. Field
// numbers are in codec_fields.hpp; ARCHITECTURE.md has the table of messages and an example.
namespace tessera::protocol {

inline constexpr std::uint32_t kVersionMajor = 1;
inline constexpr std::uint32_t kVersionMinor = 3;
// Coordinators below it would not see EmbedSpec::prompt_name, so clients do not send them one.
inline constexpr std::uint32_t kMinorWithPromptNames = 1;
// Coordinators below it refuse MetricsRequest, records and EmbedRequests, and see no quota and no
// cache control.
inline constexpr std::uint32_t kMinorWithMetrics = 2;
// Coordinators below it do not know LeaveJob.
inline constexpr std::uint32_t kMinorWithLeaveJob = 3;

// Limits that the receiver checks before it allocates.
inline constexpr std::size_t kHeaderBytesMax = 1U << 20;
inline constexpr std::size_t kPayloadBytesMax = 64U << 20;
inline constexpr std::size_t kChunkItemsMax = 4096;
inline constexpr std::size_t kTextBytesMax = 4U << 20;
inline constexpr std::size_t kBatchRequestsMax = 256;
inline constexpr std::size_t kNameBytesMax = 256;
inline constexpr std::size_t kInstructionBytesMax = 8U << 10;
inline constexpr std::uint32_t kDimensionsMin = 32;

using Bytes = std::vector<std::byte>;

enum class Lane : std::uint8_t { kInteractive = 0, kBulk = 1 };
enum class Truncate : std::uint8_t { kNone = 0, kLeft = 1, kRight = 2 };
enum class VectorType : std::uint8_t { kFloat32 = 0, kFloat16 = 1 };
enum class ItemKind : std::uint8_t { kText = 0, kTokenIds = 1 };
enum class JobState : std::uint8_t { kOpen = 0, kRunning = 1, kDone = 2, kCancelled = 3 };
// How an item of an answer came by its vector. kUnsaid: it has none, or the peer is older.
enum class ItemSource : std::uint8_t {
  kUnsaid = 0,
  kComputed = 1,    // For this request.
  kJoined = 2,      // Computed for an identical item that was in flight already.
  kMemoryHit = 3,   // From the coordinator's memory,
  kStorageHit = 4,  // from the cache's second level.
};

// How the items of a request or job are embedded.
struct EmbedSpec {
  std::string model;        // Name; empty means the only model served.
  bool query = false;       // Put the instruction template before each text.
  std::string instruction;  // Task sentence; empty with query = the folder's query prompt.
  std::uint32_t dimensions =
      0;  // Width of the answer, kDimensionsMin..hidden; 0 = the model's own.
  VectorType vector_type = VectorType::kFloat32;
  Truncate truncate = Truncate::kNone;
  std::uint32_t max_tokens =
      0;  // Own limit under the model's, with the final token; 0 = the model's.
  // Put the model folder's prompt of this name before each text; empty = by `query`: its prompt
  // "query" or "document", each of which may be empty.
  std::string prompt_name;
  bool operator==(const EmbedSpec&) const = default;
};

// 1..4096 texts or token-id lists, one behind the other in `payload`. Ids that do not end with the
// model's final token get it appended, as every text does; it counts for max_tokens and comes last
// in what truncation leaves.
struct ItemBlock {
  std::vector<std::uint32_t> sizes;  // Bytes of each item; token ids are int32, so 4 bytes each.
  std::vector<std::uint8_t> kinds;   // ItemKind of each; empty = all texts.
  Bytes payload;                     // Frame 1.
};

struct ItemError {
  std::uint32_t index = 0;
  std::string message;
  bool operator==(const ItemError&) const = default;
};

// The answer to an ItemBlock, in its order.
struct ResultBlock {
  std::vector<std::uint8_t> codes;          // ErrorCode of each item.
  std::vector<std::uint32_t> token_counts;  // Tokens embedded, the final token included.
  std::vector<std::uint32_t> tokens_cut;  // Tokens that truncation removed; empty = none anywhere.
  std::vector<ItemError> errors;          // A sentence for items whose code is not kOk.
  std::uint32_t dimensions = 0;
  VectorType vector_type = VectorType::kFloat32;
  std::uint32_t cache_hits = 0;    // Answered from the cache.
  std::uint32_t cache_joins = 0;   // Identical to an item already in flight.
  std::uint32_t cache_misses = 0;  // Computed for this request.
  Bytes payload;  // Frame 1: [number of kOk items, dimensions], rows in item order.
  std::vector<std::uint8_t> sources = {};  // ItemSource of each item; empty = an older peer.
};

// What names a request in the logs of every process that it passes.
struct RequestTrace {
  std::string id = {};           // At most kNameBytesMax bytes; empty = none.
  std::string traceparent = {};  // As of W3C Trace Context; empty = none.
  bool operator==(const RequestTrace&) const = default;
};

// A tenant's tokens per minute, as they stand after the request.
struct Quota {
  std::uint64_t limit = 0;  // 0 = there is none.
  std::uint64_t remaining = 0;
  std::uint32_t reset_ms = 0;  // Until all of it is there again.
};

struct ModelInfo {
  std::string name;
  // 64 hex digits over all bytes of the model; empty until a worker has registered, and from
  // coordinators of former versions.
  std::string fingerprint;
  std::uint32_t hidden_size = 0;
  std::uint32_t max_seqlen = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t workers = 0;
  std::vector<std::string> prompt_names;  // What EmbedSpec::prompt_name may say, sorted.
  std::string tokenizer_hash;  // 64 hex digits of tokenizer.json: whose token ids it takes.
  // 64 hex digits over samples of its weights, the only fingerprint of versions before; or the one
  // above where no worker has said it.
  std::string former_fingerprint;
  // What its workers compute in: "bfloat16", "float32"; empty while no worker has said it.
  std::string number_format;
};

struct JobProgress {
  std::string job_id;
  std::string job_key;
  std::string model;
  JobState state = JobState::kOpen;
  std::uint64_t chunks_accepted = 0;
  std::uint64_t chunks_done = 0;       // Result ready.
  std::uint64_t chunks_delivered = 0;  // Acknowledged by the client.
  std::uint64_t chunks_total = 0;      // 0 until the client closed the job.
  std::uint64_t items_accepted = 0;
  std::uint64_t items_done = 0;  // Vectors and errors.
  std::uint64_t items_failed = 0;
  std::uint64_t tokens_done = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_joins = 0;
  std::uint64_t cache_misses = 0;
};

struct WorkerStatus {
  std::string name;
  std::string device;
  std::string model;
  std::string fingerprint;
  std::uint32_t group_size = 0;
  std::uint32_t batches_in_flight = 0;
  std::uint64_t batches_done = 0;
  std::uint64_t tokens_done = 0;
  double tokens_per_second = 0;  // Measured over the last seconds.
  std::uint32_t max_batch_tokens = 0;
  double peak_tokens_per_second = 0;  // The following are of WorkerMetrics; 0 = not known.
  double busy_share = 0;
  double batch_fill = 0;  // Mean of all its batches.
  double temperature_c = 0;
  std::string device_kind;  // As in WorkerHello.
};

// Workers that were refused for one reason, under one name.
struct WorkerRefusal {
  std::string name;
  std::string device_kind;
  std::string model;
  std::string fingerprint;
  std::string reason;       // The sentence that the worker was told.
  std::uint64_t times = 0;  // In this term.
  double age_s = 0;         // Since the last one.
};

// both ways

struct Ping {
  std::uint64_t nonce = 0;
};
struct Pong {
  std::uint64_t nonce = 0;
};

// The request (or the connection, when request_id is 0) cannot be served.
struct ErrorReply {
  std::uint64_t request_id = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::uint32_t retry_after_ms = 0;
  Quota quota =
      {};  // With kResourceExhausted: limit is not 0 where the tenant's quota is the cause.
};

// client to coordinator

struct ClientHello {
  std::uint32_t minor = kVersionMinor;
  std::string client;  // Program and version, for logs.
  std::string tenant;  // Fair share is per tenant.
  // The ledger that the client has seen last, and its highest term there; empty at first.
  std::string ledger_id;
  std::uint64_t term_seen = 0;
};

struct EmbedRequest {
  std::uint64_t request_id = 0;
  EmbedSpec spec;
  Lane lane = Lane::kInteractive;
  std::uint32_t deadline_ms = 0;  // From arrival; 0 = the coordinator's default.
  ItemBlock items;
  bool no_cache = false;                // Computed anew, whatever is cached.
  bool no_store = false;                // The vectors are not put into the cache.
  std::string tenant = {};              // Of this request; empty = the connection's.
  std::uint64_t tokens_per_minute = 0;  // The tenant's quota; 0 = none.
  RequestTrace trace = {};
  std::uint32_t weight = 1;  // Of its share among the tenant's requests and jobs, 1..100.
};

// Requests that travel together, each answered by itself, at its own time: what reaches a gateway
// in one turn of its loop. The payloads lie one behind the other in `payload` and the requests'
// own are empty (common/wire/embed_batch.hpp packs and unpacks). kBatchRequestsMax at most.
struct EmbedRequests {
  std::vector<EmbedRequest> requests;
  Bytes payload;
};

// Opens a job, or takes up again the job with this key: same key and spec give the same job,
// another spec is kConflict. Until then the connection gets none of that job's results. Who opens a
// job last has it: the client that had it before gets kConflict for its own OpenJob.
struct OpenJob {
  std::uint64_t request_id = 0;
  std::string job_key;  // Chosen by the client, at most kNameBytesMax bytes.
  EmbedSpec spec;
  std::uint32_t priority = 1;  // Weight of the job's share, 1..100.
  // Random, the same each time that this taking up of the job is said again on a fresh connection:
  // so it does not take the job back from one that came later. 0: not said.
  std::uint64_t opener = 0;
  // How many items the client puts into a chunk; another number for the same key is kConflict,
  // since chunk numbers then mean other items. 0: not said.
  std::uint32_t chunk_items = 0;
  std::string tenant = {};  // Of this job; empty = the connection's.
  RequestTrace trace = {};
};

// Resending the same items is harmless; other items for a chunk that the ledger has are kConflict.
struct SubmitChunk {
  std::string job_id;
  std::uint32_t chunk = 0;  // Numbered from 0, any order.
  ItemBlock items;
  // Instead of items, for a chunk that the ledger has: are they these? 16 bytes, see ChunkDigest.
  // kNotFound when the ledger does not have the chunk.
  std::vector<std::uint8_t> digest;
};

// The client has sent all chunks: 0..chunks-1.
struct CloseJob {
  std::uint64_t request_id = 0;
  std::string job_id;
  std::uint32_t chunks = 0;
};

// The result of the chunk is safe at the client; the coordinator may forget it. Counts from the
// client that has the job.
struct ResultAck {
  std::string job_id;
  std::uint32_t chunk = 0;
};

// The client takes no more results of the job, which goes on as if the connection were closed: what
// was sent and not acknowledged waits for whoever opens the job next.
struct LeaveJob {
  std::string job_id;
  std::uint64_t opener = 0;  // Of the OpenJob that is taken back.
};

struct CancelJob {
  std::uint64_t request_id = 0;
  std::string job_id;
};

struct StatusRequest {
  std::uint64_t request_id = 0;
  std::string job_id;  // Empty: the cluster and all jobs.
};

// coordinator to client

struct ServerHello {
  std::uint32_t minor = kVersionMinor;
  std::string server;
  std::uint64_t epoch = 0;  // Leader term.
  std::vector<ModelInfo> models;
  std::string ledger_id;  // As in WorkerWelcome.
};

struct EmbedReply {
  std::uint64_t request_id = 0;
  ResultBlock results;
  Quota quota = {};
};

// Answers to requests of EmbedRequests that were ready in one turn, payloads as there.
struct EmbedReplies {
  std::vector<EmbedReply> replies;
  Bytes payload;
};

struct JobOpened {
  std::uint64_t request_id = 0;
  std::string job_id;
  JobState state = JobState::kOpen;
  std::uint32_t window_chunks = 0;  // At most so many chunks accepted and not yet delivered.
  // Inclusive ranges of chunk numbers.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> accepted;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> delivered;
};

// Durable in the ledger (kOk) or refused: kResourceExhausted asks to send it again later.
struct ChunkAck {
  std::string job_id;
  std::uint32_t chunk = 0;
  ErrorCode code = ErrorCode::kOk;
  std::string message;
  std::uint32_t retry_after_ms = 0;
};

struct ChunkResult {
  std::string job_id;
  std::uint32_t chunk = 0;
  ResultBlock results;
};

// Answer to CloseJob and CancelJob, and sent when a job ends: all chunks delivered, or cancelled.
struct JobUpdate {
  std::uint64_t request_id = 0;  // 0 when not asked for.
  JobProgress progress;
};

struct StatusReply {
  std::uint64_t request_id = 0;
  std::uint64_t epoch = 0;
  double uptime_s = 0;
  std::vector<JobProgress> jobs;
  std::vector<WorkerStatus> workers;
  std::vector<ModelInfo> models;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_joins = 0;
  std::uint64_t cache_misses = 0;
  std::uint64_t tokens_done = 0;
  std::uint64_t queued_tokens = 0;
  std::string ledger_id;
  std::string ledger_warning;  // What happened to the ledger, a sentence; empty: nothing known.
  std::vector<WorkerRefusal> refused_workers;  // The latest first.
  double ledger_away_s = 0;                    // How long Redis has not been reachable; 0: it is.
};

// worker to coordinator

struct WorkerHello {
  std::uint32_t minor = kVersionMinor;
  std::string name;  // Stable; the routing id names this process start.
  std::string device;
  std::string model;
  std::string fingerprint;  // 64 hex digits over all bytes of the model
  std::string
      tokenizer_hash;  // 64 hex digits of tokenizer.json, which the coordinator must hold too
  std::uint32_t hidden_size = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t group_size = 1;
  std::uint32_t max_batch_tokens = 0;
  std::uint32_t max_batch_sequences = 0;
  std::uint32_t max_seqlen = 0;
  std::uint32_t preferred_seqlen_min = 0;
  std::uint32_t preferred_seqlen_max = 0;  // 0 = no preference
  std::uint32_t slots = 2;                 // Batches that may be in flight.
  double cost_s = 0;                       // t = cost_s + cost_s_per_token * tokens
  double cost_s_per_token = 0;             //     + cost_s_per_token2 * sum(len^2)
  double cost_s_per_token2 = 0;
  // Random, the same for all connections of one process start: who says it again has not died. 0:
  // not said.
  std::uint64_t process = 0;
  // 64 hex digits over samples of the weights, all that versions before had. What those left behind
  // and still say of this model is known by it.
  std::string former_fingerprint;
  // What decides a vector's last bits beside the model: "cpu-avx512_bf16", "sm90".
  std::string device_kind;
  std::string number_format;  // Of weights and activations: "bfloat16", "float32".
  // The ledger of the coordinator that was followed last, and the highest term seen there; empty at
  // first. By these a coordinator learns that its ledger is an older copy, or another one.
  std::string ledger_id;
  std::uint64_t term_seen = 0;
  // Beside `slots` batches one more of at most so many tokens, Batch::express, which overtakes
  // them. 0: none.
  std::uint32_t express_tokens = 0;
};

// Sequence order is that of the Batch. Vectors are rounded to float16 before they leave the worker.
struct BatchResult {
  std::uint64_t epoch = 0;
  std::uint64_t batch_id = 0;
  std::uint32_t attempt = 0;
  std::vector<std::uint8_t> codes;  // ErrorCode of each sequence: kOk or kNotFinite.
  std::uint64_t compute_us = 0;     // On this batch alone, so that batches add up to the time busy.
  Bytes payload;  // Frame 1: [sequences, hidden_size] float16; rows of failed sequences are zero.
};

// The worker stops after the batches that it holds; give it no more.
struct WorkerGoodbye {
  std::string reason;
};

// coordinator to worker

struct WorkerWelcome {
  std::uint64_t epoch = 0;
  std::uint32_t heartbeat_ms = 1000;  // Ping when idle for so long; silence of three is death.
  std::uint32_t metrics_ms = 0;       // Between two WorkerMetrics; 0 = send none.
  std::string ledger_id;  // 32 hex digits, made with the ledger. Terms of different ones say
                          // nothing about each other.
};

struct Batch {
  std::uint64_t epoch = 0;
  std::uint64_t batch_id = 0;
  std::uint32_t attempt = 0;
  std::vector<std::uint32_t> lengths;  // Tokens of each sequence.
  Bytes payload;                       // Frame 1: int32 token ids, one sequence behind the other.
  std::vector<RequestTrace> traces = {};  // Of requests with sequences in it, for logs; not all.
  bool express = false;                   // Overtakes others; only to workers that take some.
};

using AnyMessage =
    std::variant<Ping, Pong, ErrorReply, ClientHello, EmbedRequest, OpenJob, SubmitChunk, CloseJob,
                 ResultAck, CancelJob, StatusRequest, ServerHello, EmbedReply, JobOpened, ChunkAck,
                 ChunkResult, JobUpdate, StatusReply, WorkerHello, BatchResult, WorkerGoodbye,
                 WorkerWelcome, Batch, WorkerMetrics, MetricsRequest, MetricsReply, RecordPut,
                 RecordQuery, RecordClaim, RecordDelete, RecordsReply, EmbedRequests, EmbedReplies,
                 LeaveJob>;

// One of them. A class of its own, so that copying, moving and destroying so many types is compiled
// once, in protocol.cpp, and not in every file that holds one.
class Message : public AnyMessage {
 public:
  using AnyMessage::AnyMessage;
  Message();
  Message(const Message& other);
  Message(Message&& other) noexcept;
  Message& operator=(const Message& other);
  Message& operator=(Message&& other) noexcept;
  ~Message();
};

// The name of the message's type, for logs: "SubmitChunk".
std::string_view name_of(const Message& message);

// Checks that sizes, kinds and payload agree and keep the limits. Item contents (UTF-8, token ids)
// are judged per item later.
Result<void> validate(const ItemBlock& items);

}  // namespace tessera::protocol
