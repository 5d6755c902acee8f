#include "coordinator/core/records/record_desk.hpp"

#include <gtest/gtest.h>

#include "tests/coordinator/core/core_harness.hpp"

namespace tessera::coordinator {
namespace {

using protocol::ErrorReply;
using protocol::RecordsReply;

constexpr Micros kMs = 1000;

protocol::Bytes bytes_of(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}
std::string text_of(const protocol::Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Two gateways and the records they share.
class RecordDeskTest : public testing::Test {
 protected:
  RecordDeskTest() = default;
  void start(CoreOptions options = CoreHarness::default_options(),
             simulation::FakeLedger left = {}) {
    harness = std::make_unique<CoreHarness>(std::move(options), std::move(left));
  }
  void SetUp() override { start(); }

  // What a client's message is answered with: the code, and of a success the version.
  template <typename M>
  std::pair<ErrorCode, std::uint64_t> ask(M message, const std::string& peer = "a") {
    message.request_id = ++asked;
    harness->from_client(peer, message);
    for (const auto& error : harness->got<ErrorReply>(peer)) {
      if (error.request_id == asked) {
        last_error = error;
        return {error.code, 0};
      }
    }
    for (const auto& reply : harness->got<RecordsReply>(peer)) {
      if (reply.request_id == asked) {
        last = reply;
        return {ErrorCode::kOk, reply.records.empty() ? 0 : reply.records[0].version};
      }
    }
    return {ErrorCode::kInternal, 0};
  }
  std::pair<ErrorCode, std::uint64_t> put(const std::string& id, std::uint64_t version,
                                          std::string_view content = "{}",
                                          const std::string& tenant = "t") {
    return ask(protocol::RecordPut{
        .id = id, .tenant = tenant, .expected_version = version, .payload = bytes_of(content)});
  }
  std::pair<ErrorCode, std::uint64_t> claim(const std::string& id, const std::string& owner,
                                            std::uint32_t lease_ms = 1000) {
    return ask(protocol::RecordClaim{.id = id, .owner = owner, .lease_ms = lease_ms}, owner);
  }
  std::vector<std::string> list(protocol::RecordQuery query) {
    EXPECT_EQ(ask(std::move(query)).first, ErrorCode::kOk);
    std::vector<std::string> ids;
    for (const auto& record : last.records) {
      ids.push_back(record.id);
    }
    return ids;
  }
  static std::pair<ErrorCode, std::uint64_t> ok(std::uint64_t version) {
    return {ErrorCode::kOk, version};
  }

  std::unique_ptr<CoreHarness> harness;
  std::uint64_t asked = 0;
  RecordsReply last{.records = {}, .payload = {}};
  ErrorReply last_error;
};

TEST_F(RecordDeskTest, AChangeNamesTheVersionThatItChanges) {
  EXPECT_EQ(put("b1", 0, "one"), ok(1));
  EXPECT_EQ(put("b1", 0, "again").first, ErrorCode::kConflict);
  EXPECT_EQ(put("b1", 1, "two"), ok(2));
  EXPECT_EQ(put("b1", 1, "late").first, ErrorCode::kConflict);
  EXPECT_EQ(put("b2", 1, "of nothing").first, ErrorCode::kNotFound);
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}), ok(2));
  EXPECT_EQ(text_of(last.payload), "two");
  EXPECT_EQ(ask(protocol::RecordDelete{.id = "b1", .tenant = "t", .expected_version = 1}).first,
            ErrorCode::kConflict);
  EXPECT_EQ(ask(protocol::RecordDelete{.id = "b1", .tenant = "t", .expected_version = 2}), ok(3));
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}).first, ErrorCode::kNotFound);
  EXPECT_EQ(put("b1", 0, "anew"), ok(1));
}

TEST_F(RecordDeskTest, IsAnsweredWhenItIsDurable) {
  harness->ledger_answers = false;
  EXPECT_EQ(put("b1", 0).first, ErrorCode::kInternal) << "no answer yet";
  EXPECT_EQ(put("b1", 0).first, ErrorCode::kConflict) << "another one's change is under way";
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}).first, ErrorCode::kNotFound);
  const RunLedger operation = harness->operations.back();
  harness->step(LedgerReply{.id = operation.id,
                            .reply = harness->ledger.run(operation.operation, harness->epoch)});
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}), ok(1));
}

TEST_F(RecordDeskTest, WhatTheLedgerRefusesIsNotChanged) {
  put("b1", 0, "one");
  harness->ledger_status = ledger::Status::kFailed;
  EXPECT_EQ(put("b1", 1, "two").first, ErrorCode::kUnavailable);
  EXPECT_GT(last_error.retry_after_ms, 0U);
  EXPECT_EQ(put("b2", 0).first, ErrorCode::kUnavailable);
  harness->ledger_status = ledger::Status::kDone;
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}), ok(1));
  EXPECT_EQ(text_of(last.payload), "one");
  EXPECT_EQ(put("b1", 1, "two"), ok(2));
  harness->step(LedgerState{false});
  EXPECT_EQ(put("b1", 2).first, ErrorCode::kUnavailable);
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}), ok(2)) << "reading goes on";
}

TEST_F(RecordDeskTest, ALeaseIsOneOwnersUntilItEnds) {
  put("b1", 0);
  EXPECT_EQ(claim("b1", "g1"), ok(2));
  EXPECT_EQ(last.records[0].owner, "g1");
  EXPECT_EQ(last.records[0].lease_left_ms, 1000U);
  EXPECT_EQ(claim("b1", "g2").first, ErrorCode::kConflict);
  EXPECT_EQ(last_error.retry_after_ms, 1000U);
  harness->pass(900 * kMs);
  EXPECT_EQ(claim("b1", "g1"), ok(2)) << "renewed, no change of the record";
  harness->pass(900 * kMs);
  EXPECT_EQ(claim("b1", "g2").first, ErrorCode::kConflict);
  harness->pass(200 * kMs);
  EXPECT_EQ(claim("b1", "g2"), ok(3));
  EXPECT_EQ(put("b1", 2, "by the former owner").first, ErrorCode::kConflict);
  EXPECT_EQ(claim("b1", "g1").first, ErrorCode::kConflict);
  EXPECT_EQ(claim("b1", "g2", 0), ok(3)) << "given back";
  EXPECT_EQ(claim("b1", "g1"), ok(4));
  EXPECT_EQ(claim("b0", "g1").first, ErrorCode::kNotFound);
  EXPECT_EQ(claim("b1", "").first, ErrorCode::kInvalidArgument);
}

TEST_F(RecordDeskTest, ARestartKeepsRecordsAndGivesOwnersTheirTimeAnew) {
  put("b1", 0, "one");
  put("b2", 0, "other");
  claim("b1", "g1");
  start(CoreHarness::default_options(), harness->ledger);
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "b1"}), ok(2));
  EXPECT_EQ(text_of(last.payload), "one");
  EXPECT_EQ(claim("b1", "g2").first, ErrorCode::kConflict);
  EXPECT_EQ(claim("b1", "g1"), ok(2));
  harness->pass(1100 * kMs);
  EXPECT_EQ(claim("b1", "g2"), ok(3));
  put("b3", 0);
  EXPECT_EQ(list({.tenant = "t"}), (std::vector<std::string>{"b3", "b2", "b1"}));
}

TEST_F(RecordDeskTest, ListsATenantsRecordsNewestFirstInPages) {
  for (int i = 0; i < 5; ++i) {
    std::string id = "b";
    id += std::to_string(i);
    put(id, 0, std::string(static_cast<std::size_t>(i), 'x'));
  }
  put("f0", 0);
  put("c0", 0, "{}", "u");
  ask(protocol::RecordPut{
      .id = "b1", .tenant = "t", .expected_version = 1, .open = false, .payload = {}});
  EXPECT_EQ(list({.tenant = "t", .prefix = "b", .limit = 2}),
            (std::vector<std::string>{"b4", "b3"}));
  EXPECT_TRUE(last.more);
  EXPECT_EQ(last.records[0].bytes + last.records[1].bytes, last.payload.size());
  EXPECT_EQ(list({.tenant = "t", .prefix = "b", .after = "b3", .limit = 3}),
            (std::vector<std::string>{"b2", "b1", "b0"}));
  EXPECT_FALSE(last.more);
  EXPECT_EQ(list({.tenant = "t", .prefix = "b", .open_only = true, .after = "b3"}),
            (std::vector<std::string>{"b2", "b0"}));
  EXPECT_EQ(list({.all_tenants = true, .limit = 2}), (std::vector<std::string>{"c0", "f0"}));
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .after = "gone"}).first, ErrorCode::kNotFound);
  EXPECT_EQ(ask(protocol::RecordQuery{.tenant = "t", .id = "c0"}).first, ErrorCode::kNotFound);
  EXPECT_EQ(ask(protocol::RecordQuery{.all_tenants = true, .id = "c0"}), ok(1));
  EXPECT_EQ(put("c0", 1, "of another tenant").first, ErrorCode::kNotFound);
  EXPECT_EQ(put("c0", 0, "of another tenant").first, ErrorCode::kConflict);
}

TEST_F(RecordDeskTest, KeepsItsBounds) {
  CoreOptions options = CoreHarness::default_options();
  options.records = {.records_max = 4, .tenant_records_max = 3, .bytes_max = 1000};
  start(options);
  EXPECT_EQ(put("", 0).first, ErrorCode::kInvalidArgument);
  EXPECT_EQ(put(std::string(257, 'x'), 0).first, ErrorCode::kInvalidArgument);
  EXPECT_EQ(put("b", 0, std::string(65'537, 'x')).first, ErrorCode::kInvalidArgument);
  EXPECT_EQ(put("b1", 0, std::string(600, 'x')), ok(1));
  EXPECT_EQ(put("b2", 0, std::string(600, 'x')).first, ErrorCode::kResourceExhausted);
  EXPECT_EQ(put("b1", 1, std::string(900, 'x')), ok(2)) << "it takes its own room";
  EXPECT_EQ(put("b1", 2, "x"), ok(3));
  EXPECT_EQ(put("b2", 0), ok(1));
  EXPECT_EQ(put("b3", 0), ok(1));
  EXPECT_EQ(put("b4", 0).first, ErrorCode::kResourceExhausted);
  EXPECT_EQ(put("c1", 0, "{}", "u"), ok(1));
  EXPECT_EQ(put("c2", 0, "{}", "u").first, ErrorCode::kResourceExhausted);
  EXPECT_EQ(ask(protocol::RecordDelete{.id = "b3", .tenant = "t", .expected_version = 1}), ok(2));
  EXPECT_EQ(put("c2", 0, "{}", "u"), ok(1));
}

TEST_F(RecordDeskTest, ALeaseRenewedWhileAChangeIsWrittenIsKept) {
  put("b1", 0);
  claim("b1", "g1");
  harness->ledger_answers = false;
  put("b1", 2, "changed");
  const RunLedger operation = harness->operations.back();
  harness->pass(900 * kMs);
  EXPECT_EQ(claim("b1", "g1"), ok(2));
  harness->step(LedgerReply{.id = operation.id,
                            .reply = harness->ledger.run(operation.operation, harness->epoch)});
  harness->ledger_answers = true;
  harness->pass(500 * kMs);
  EXPECT_EQ(claim("b1", "g2").first, ErrorCode::kConflict);
  EXPECT_EQ(last_error.retry_after_ms, 500U);
}

}  // namespace
}  // namespace tessera::coordinator
