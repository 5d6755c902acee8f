#include "clients/gateway/batches/batch_record.hpp"

#include <algorithm>
#include <array>

namespace tessera::gateway {
namespace {

constexpr std::array<std::string_view, 8> kNames{"validating", "failed",    "in_progress",
                                                 "finalizing", "completed", "expired",
                                                 "cancelling", "cancelled"};

}  // namespace

std::string_view to_string(BatchStatus status) {
  return kNames.at(static_cast<std::size_t>(status));
}

std::optional<BatchStatus> batch_status_named(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found == kNames.end()) {
    return std::nullopt;
  }
  return static_cast<BatchStatus>(found - kNames.begin());
}

bool is_open(const BatchRecord& record) {
  switch (record.status) {
    case BatchStatus::kValidating:
    case BatchStatus::kInProgress:
    case BatchStatus::kFinalizing:
    case BatchStatus::kCancelling:
      return true;
    default:
      return false;
  }
}

void begin_lines(BatchRecord& record, std::int64_t now) {
  if (record.status == BatchStatus::kValidating) {
    record.status = BatchStatus::kInProgress;
    record.in_progress_at = now;
  }
}

void begin_finalizing(BatchRecord& record, std::int64_t now) {
  if (record.status == BatchStatus::kInProgress) {
    record.status = BatchStatus::kFinalizing;
    record.finalizing_at = now;
  }
}

void end_batch(BatchRecord& record, BatchStatus status, std::int64_t now) {
  record.status = status;
  switch (status) {
    case BatchStatus::kCompleted:
      record.completed_at = now;
      break;
    case BatchStatus::kFailed:
      record.failed_at = now;
      break;
    case BatchStatus::kExpired:
      record.expired_at = now;
      break;
    default:
      record.cancelled_at = now;
      break;
  }
}

void fail_batch(BatchRecord& record, std::string code, std::string message, std::int64_t now) {
  record.faults = {
      {.code = std::move(code), .message = std::move(message), .param = {}, .line = 0}};
  end_batch(record, BatchStatus::kFailed, now);
}

Result<bool> request_cancel(BatchRecord& record, std::int64_t now) {
  switch (record.status) {
    case BatchStatus::kValidating:
    case BatchStatus::kInProgress:
      record.status = BatchStatus::kCancelling;
      record.cancelling_at = now;
      return true;
    case BatchStatus::kCancelling:
    case BatchStatus::kCancelled:
      return false;
    default:
      return Error{
          ErrorCode::kConflict,
          "a batch with status " + std::string(to_string(record.status)) + " cannot be cancelled"};
  }
}

protocol::RecordPut put_of(const BatchRecord& batch, std::uint64_t expected_version) {
  const std::string text = stored_json(batch);
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {.id = batch.id,
          .tenant = batch.tenant,
          .expected_version = expected_version,
          .open = is_open(batch),
          .payload = {data, data + text.size()}};
}

std::vector<std::string> contents_of(const protocol::RecordsReply& reply) {
  std::vector<std::string> contents;
  std::size_t at = 0;
  for (const protocol::RecordInfo& info : reply.records) {
    if (at + info.bytes > reply.payload.size()) {
      break;
    }
    contents.emplace_back(reinterpret_cast<const char*>(reply.payload.data()) + at, info.bytes);
    at += info.bytes;
  }
  return contents;
}

}  // namespace tessera::gateway
