// A batch's record: its states, its forms, the request that makes it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "clients/gateway/batches/batch_request.hpp"

namespace tessera::gateway {
namespace {

BatchRecord some_batch() {
  BatchRecord record;
  record.id = "batch_1";
  record.endpoint = "/v1/embeddings";
  record.input_file_id = "file-1";
  record.completion_window = "24h";
  record.created_at = 1000;
  record.expires_at = 2000;
  return record;
}

TEST(BatchRecordTest, HasAllOfOpenAisKeys) {
  const auto json = nlohmann::json::parse(public_json(some_batch()));
  for (const char* key : {"id",
                          "object",
                          "endpoint",
                          "model",
                          "errors",
                          "input_file_id",
                          "completion_window",
                          "status",
                          "output_file_id",
                          "error_file_id",
                          "created_at",
                          "in_progress_at",
                          "expires_at",
                          "finalizing_at",
                          "completed_at",
                          "failed_at",
                          "expired_at",
                          "cancelling_at",
                          "cancelled_at",
                          "request_counts",
                          "usage",
                          "metadata"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json.size(), 22U);
  EXPECT_EQ(json["object"], "batch");
  EXPECT_EQ(json["status"], "validating");
  EXPECT_TRUE(json["errors"].is_null() && json["metadata"].is_null());
  EXPECT_EQ(json["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
}

TEST(BatchRecordTest, ComesBackFromTheLedger) {
  BatchRecord record = some_batch();
  record.model = "m";
  record.metadata = {{"key", "va\"lue"}, {"empty", ""}};
  record.faults = {{.code = "c", .message = "m", .param = "p", .line = 3}, {.code = "d"}};
  record.output_file_id = "file-2";
  record.total = 5;
  record.completed = 3;
  record.failed = 2;
  record.tokens = 100;
  record.cached_tokens = 40;
  record.output_expires_s = 3600;
  record.tokens_per_minute = 7;
  record.status = BatchStatus::kExpired;
  record.in_progress_at = 1001;
  record.expired_at = 2001;
  auto after = read_batch(stored_json(record));
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(*after, record);
  EXPECT_FALSE(nlohmann::json::parse(public_json(record)).contains("tokens_per_minute"));
  EXPECT_FALSE(read_batch(R"({"id":"other"})").ok());
  EXPECT_FALSE(read_batch(R"({"id":"batch_1","status":"odd"})").ok());
}

TEST(BatchRecordTest, FitsTheLedgerWithTheFaultsThatItHasRoomFor) {
  BatchRecord record = some_batch();
  record.metadata.emplace();
  for (int i = 0; i < 16; ++i) {
    record.metadata->emplace_back(std::string(62, '\x01') + std::to_string(10 + i),
                                  std::string(512, '\x01'));
  }
  record.faults.resize(100, {.code = "c", .message = std::string(300, '\x01'), .param = "p"});
  const std::string text = stored_json(record);
  EXPECT_LE(text.size(), protocol::kRecordBytesMax);
  const auto after = read_batch(text);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->metadata, record.metadata);
  EXPECT_GT(after->faults.size(), 0U);
  EXPECT_LT(after->faults.size(), 100U);
}

TEST(BatchRecordTest, GoesThroughItsStates) {
  BatchRecord record = some_batch();
  EXPECT_TRUE(is_open(record));
  begin_lines(record, 1001);
  EXPECT_EQ(record.status, BatchStatus::kInProgress);
  begin_lines(record, 1002);  // Again, by the next holder.
  EXPECT_EQ(record.in_progress_at, 1001);
  begin_finalizing(record, 1003);
  EXPECT_EQ(record.status, BatchStatus::kFinalizing);
  EXPECT_FALSE(request_cancel(record, 1004).ok());
  end_batch(record, BatchStatus::kCompleted, 1005);
  EXPECT_EQ(record.completed_at, 1005);
  EXPECT_FALSE(is_open(record));
  EXPECT_EQ(request_cancel(record, 1006).error().code, ErrorCode::kConflict);
}

TEST(BatchRecordTest, IsCancelledOnce) {
  BatchRecord record = some_batch();
  EXPECT_TRUE(*request_cancel(record, 1001));
  EXPECT_FALSE(*request_cancel(record, 1002));
  EXPECT_EQ(record.cancelling_at, 1001);
  begin_lines(record, 1003);
  begin_finalizing(record, 1003);
  EXPECT_EQ(record.status, BatchStatus::kCancelling);
  EXPECT_TRUE(is_open(record));
  end_batch(record, BatchStatus::kCancelled, 1004);
  EXPECT_FALSE(*request_cancel(record, 1005));
  EXPECT_EQ(record.cancelled_at, 1004);
}

TEST(BatchRecordTest, FailsForOneReason) {
  BatchRecord record = some_batch();
  fail_batch(record, "input_file_not_found", "Gone.", 1001);
  EXPECT_EQ(record.status, BatchStatus::kFailed);
  EXPECT_EQ(record.failed_at, 1001);
  EXPECT_EQ(record.faults.size(), 1U);
}

TEST(BatchRequestTest, ReadsWindows) {
  EXPECT_EQ(window_seconds("24h"), 86'400);
  EXPECT_EQ(window_seconds("1s"), 1);
  EXPECT_EQ(window_seconds("30d"), 2'592'000);
  for (const char* wrong :
       {"", "h", "0h", "-1h", "24", "31d", "1w", "24hh", "721h", "1 h", "99999999999999999999d"}) {
    EXPECT_FALSE(window_seconds(wrong).has_value()) << wrong;
  }
}

std::string param_of(std::string body) {
  const auto read = read_batch_request(body);
  const auto* problem = std::get_if<http::Problem>(&read);
  return problem == nullptr ? "none" : problem->param;
}

TEST(BatchRequestTest, ReadsOpenAisFields) {
  std::string body =
      R"({"input_file_id":"file-1","endpoint":"/v1/embeddings","completion_window":"24h",)"
      R"("metadata":{"k":"v"},"output_expires_after":{"anchor":"created_at","seconds":3600}})";
  const auto read = read_batch_request(body);
  const auto& record = std::get<BatchRecord>(read);
  EXPECT_EQ(record.input_file_id, "file-1");
  EXPECT_EQ(record.output_expires_s, 3600);
  EXPECT_EQ(record.metadata->front().second, "v");
  const std::string begin = R"({"endpoint":"/v1/embeddings","completion_window":"24h",)";
  EXPECT_EQ(param_of(begin + R"("input_file_id":"f","metadata":null})"), "none");
  EXPECT_EQ(param_of(begin + R"("metadata":{}})"), "input_file_id");
  EXPECT_EQ(
      param_of(begin + R"("input_file_id":"f","metadata":{"k":")" + std::string(513, 'a') + "\"}}"),
      "metadata");
  std::string umlauts;
  for (int i = 0; i < 512; ++i) {
    umlauts += "\u00e4";
  }
  EXPECT_EQ(param_of(begin + R"("input_file_id":"f","metadata":{"k":")" + umlauts + "\"}}"),
            "none");
}

TEST(BatchRequestTest, PagesHaveTheirEnds) {
  BatchRecord other = some_batch();
  other.id = "batch_2";
  const auto page = nlohmann::json::parse(batch_list_json({some_batch(), other}, true));
  EXPECT_EQ(page["first_id"], "batch_1");
  EXPECT_EQ(page["last_id"], "batch_2");
  EXPECT_EQ(page["has_more"], true);
  const auto empty = nlohmann::json::parse(batch_list_json({}, false));
  EXPECT_TRUE(empty["first_id"].is_null() && empty["data"].empty());
}

}  // namespace
}  // namespace tessera::gateway
