#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clients/gateway/batches/lines/batch_line.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::gateway {

enum class BatchStatus : std::uint8_t {
  kValidating,
  kFailed,
  kInProgress,
  kFinalizing,
  kCompleted,
  kExpired,
  kCancelling,
  kCancelled,
};
std::string_view to_string(BatchStatus status);
std::optional<BatchStatus> batch_status_named(std::string_view name);

inline constexpr std::string_view kBatchIdPrefix = "batch_";
inline constexpr std::size_t kBatchFaultsMax = 100;

// The state of a batch: OpenAI's Batch object, and what its runner needs to know beside. Lives in
// the ledger as a record's content, JSON. Times are seconds since 1970. Pure.
//
//   validating -> in_progress -> finalizing -> completed
//   validating -> failed                 what is wrong with the input is in `faults`
//   in_progress -> finalizing -> expired    the window is over
//   validating, in_progress -> cancelling -> cancelled
//   in_progress -> failed                the input or the work is gone
struct BatchRecord {
  std::string id;
  std::string tenant;  // Of the record; not in the content.
  std::string endpoint;
  std::string model;  // Known when validated.
  std::vector<BatchFault> faults;
  std::string input_file_id;
  std::string completion_window;
  BatchStatus status = BatchStatus::kValidating;
  std::string output_file_id;  // Empty: none.
  std::string error_file_id;
  std::int64_t created_at = 0;
  std::optional<std::int64_t> in_progress_at;
  std::int64_t expires_at = 0;
  std::optional<std::int64_t> finalizing_at;
  std::optional<std::int64_t> completed_at;
  std::optional<std::int64_t> failed_at;
  std::optional<std::int64_t> expired_at;
  std::optional<std::int64_t> cancelling_at;
  std::optional<std::int64_t> cancelled_at;
  std::uint64_t total = 0;  // Lines,
  std::uint64_t completed = 0;
  std::uint64_t failed = 0;
  std::uint64_t tokens = 0;
  std::uint64_t cached_tokens = 0;
  std::optional<std::vector<std::pair<std::string, std::string>>> metadata;
  std::optional<std::int64_t> output_expires_s;  // Of the files that it makes, after their making.
  std::uint64_t tokens_per_minute = 0;           // Quota of the caller who made it; 0: none.

  bool operator==(const BatchRecord&) const = default;
};

// Whether a runner has work with it.
bool is_open(const BatchRecord& record);

// transitions

void begin_lines(BatchRecord& record, std::int64_t now);       // -> in_progress
void begin_finalizing(BatchRecord& record, std::int64_t now);  // A cancelled one stays cancelling.
// -> completed, failed, expired or cancelled.
void end_batch(BatchRecord& record, BatchStatus status, std::int64_t now);
// Fails it for one reason that is not of a line.
void fail_batch(BatchRecord& record, std::string code, std::string message, std::int64_t now);
// True when it was changed; false when there is nothing to change (it is being cancelled, or was);
// kConflict when it has ended otherwise, or is about to.
Result<bool> request_cancel(BatchRecord& record, std::int64_t now);

// forms

// As clients see it: all of OpenAI's keys, null where there is nothing.
std::string public_json(const BatchRecord& record);
// As it is stored, at most kRecordBytesMax: where faults would not fit, the last are left out.
std::string stored_json(const BatchRecord& record);
// From stored_json(); kInvalidArgument for anything else. Tenant is not filled.
Result<BatchRecord> read_batch(std::string json);
// The same of a record of the ledger.
Result<BatchRecord> batch_of(const protocol::RecordInfo& info, std::string content);

// messages

// The change of a record from `expected_version` (0: its making) to `batch`.
protocol::RecordPut put_of(const BatchRecord& batch, std::uint64_t expected_version);
// The content of each of the reply's records, as far as the payload goes.
std::vector<std::string> contents_of(const protocol::RecordsReply& reply);

}  // namespace tessera::gateway
