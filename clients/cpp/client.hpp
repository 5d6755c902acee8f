#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clients/cpp/client_options.hpp"
#include "clients/cpp/items.hpp"
#include "clients/cpp/job.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::client {

// One text or one list of token ids.
struct Item {
  std::string text;
  std::vector<std::int32_t> ids;  // Used, and `text` ignored, when not empty.
};

// The vector of one item, or why there is none.
struct ItemResult {
  std::vector<float> vector;  // Unit length; empty on an error.
  Error error{.code = ErrorCode::kOk, .message = {}};
  std::uint32_t tokens = 0;      // Embedded, the final token included.
  std::uint32_t tokens_cut = 0;  // Removed by truncation.
  bool ok() const { return error.code == ErrorCode::kOk; }
};

struct EmbedResult {
  std::vector<ItemResult> items;  // In the order of the question.
  std::uint32_t dimensions = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_joins = 0;
  std::uint64_t cache_misses = 0;
};

// A connection to a Tessera coordinator. All functions may be called from any thread, also at the
// same time; a thread inside owns the socket, answers pings, and after a lost connection or a
// restarted coordinator connects again and repeats what was not answered (embedding is idempotent).
// Throws FatalError from the constructor only, on an address that cannot be an endpoint.
class Client {
 public:
  explicit Client(ClientOptions options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // Waits for the coordinator's hello. Optional: every call below waits by itself.
  Result<protocol::ServerHello> connect(std::chrono::milliseconds timeout);

  // Whether a coordinator answers at this moment; calls wait while none does.
  bool connected() const;

  // Embeds all items, in requests of at most 256 items and 1 MiB, several in flight. The error is
  // for the whole call; a bad item has its own error in the result. Refusals with
  // RESOURCE_EXHAUSTED are tried again with back-off until the deadline. Timeout 0: none.
  Result<EmbedResult> embed(const std::vector<Item>& items, const protocol::EmbedSpec& spec,
                            std::chrono::milliseconds timeout,
                            protocol::Lane lane = protocol::Lane::kInteractive);

  // Opens the job with this key, or takes it up again: same key and spec continue it, another spec
  // is kConflict. Waits for the coordinator at most `timeout`; 0: without end.
  Result<Job> open_job(const protocol::OpenJob& open, std::chrono::milliseconds timeout);

  // Of one job (kNotFound when unknown), or of the cluster when `job_id` is empty.
  Result<protocol::StatusReply> status(const std::string& job_id,
                                       std::chrono::milliseconds timeout);
  Result<protocol::JobProgress> cancel(const std::string& job_id,
                                       std::chrono::milliseconds timeout);

  // Records (common/wire/protocol_records.hpp): small texts that the ledger keeps, with
  // compare-and-set and leases. request_id is set here. A put whose answer was lost is asked again
  // and may then be refused with kConflict, although it is the one that was made: read the record
  // to see.
  Result<protocol::RecordsReply> put_record(protocol::RecordPut put,
                                            std::chrono::milliseconds timeout);
  Result<protocol::RecordsReply> query_records(protocol::RecordQuery query,
                                               std::chrono::milliseconds timeout);
  Result<protocol::RecordsReply> claim_record(protocol::RecordClaim claim,
                                              std::chrono::milliseconds timeout);
  Result<protocol::RecordsReply> delete_record(protocol::RecordDelete request,
                                               std::chrono::milliseconds timeout);

 private:
  template <typename Question>
  Result<protocol::RecordsReply> ask_for_records(Question question,
                                                 std::chrono::milliseconds timeout);
  std::shared_ptr<Connection> connection_;
};

}  // namespace tessera::client
