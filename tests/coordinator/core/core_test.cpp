#include "coordinator/core/core.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/coordinator/core/core_harness.hpp"

namespace tessera::coordinator {
namespace {

constexpr Micros kSecond = 1'000'000;

protocol::EmbedRequest request_of(std::uint64_t id, std::vector<std::string> texts) {
  return {.request_id = id, .spec = {}, .items = simulation::block_of(texts)};
}

TEST(Core, AnAnswerThatFitsNoMessageIsRefusedBeforeItIsBegun) {
  CoreOptions options = CoreHarness::default_options();
  options.models[0].hidden_size = 8192;  // 4096 vectors of fp32: 128 MiB.
  CoreHarness harness(std::move(options));
  harness.core_hidden_size = 8192;
  harness.add_worker("w");
  const std::vector<std::string> texts(4096, "text");
  harness.from_client("c", request_of(1, texts));
  const auto refused = harness.got<protocol::ErrorReply>("c");
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].code, ErrorCode::kInvalidArgument);
  const JobId job = harness.open_job("c", "key");
  harness.submit("c", job, 0, texts);
  const auto acks = harness.got<protocol::ChunkAck>("c");
  ASSERT_EQ(acks.size(), 1U);
  EXPECT_EQ(acks[0].code, ErrorCode::kInvalidArgument);
  harness.from_client("c", request_of(2, std::vector<std::string>(2048, "text")));
  harness.work();
  EXPECT_EQ(harness.got<protocol::EmbedReply>("c").size(), 1U);
}

TEST(Core, AJobThatCannotBeServedNowKeepsItsKey) {
  CoreHarness first;
  first.open_job("c", "key");
  CoreOptions options = CoreHarness::default_options();
  options.models[0].name = "other";
  Core core(options, first.ledger.load(), 0);
  const Actions actions = core.step(
      FromClient{"c",
                 protocol::OpenJob{.request_id = 1, .job_key = "key", .spec = {.model = "other"}}},
      0);
  ASSERT_EQ(actions.size(), 1U);
  const auto& error = std::get<protocol::ErrorReply>(std::get<SendClient>(actions[0]).message);
  EXPECT_EQ(error.code, ErrorCode::kConflict);
}

TEST(Core, AResultThatTheLedgerRefusesIsTriedAgainWithPatience) {
  CoreHarness harness;
  harness.add_worker("w");
  const JobId job = harness.open_job("c", "key");
  harness.submit("c", job, 0, {"text 1", "text 2"});
  harness.ledger_status = ledger::Status::kFailed;  // Full, or its disk is.
  harness.work();
  const auto stores = [&] {
    return std::ranges::count_if(harness.operations, [](const RunLedger& run) {
      return std::holds_alternative<ledger::StoreResult>(run.operation);
    });
  };
  for (int tick = 0; tick < 40; ++tick) {
    harness.pass(kSecond / 20);
  }
  EXPECT_LE(stores(), 4) << "a refusal is no reason to send the whole result with each tick";
  harness.ledger_status = ledger::Status::kDone;
  harness.pass(2 * kSecond);
  EXPECT_EQ(harness.got<protocol::ChunkResult>("c").size(), 1U);
}

TEST(Core, QueriesWaitForTheFirstWorkerUntilTheirDeadline) {
  CoreHarness harness;
  harness.from_client("c", request_of(1, {"text 1"}));
  harness.pass(61 * kSecond);
  const auto late = harness.got<protocol::ErrorReply>("c");
  ASSERT_EQ(late.size(), 1U);
  EXPECT_EQ(late[0].code, ErrorCode::kUnavailable);
  harness.from_client("c", request_of(2, {"text 2"}));
  harness.from_client("c", request_of(3, {"text 3"}));
  harness.add_worker("w");
  harness.work();
  EXPECT_EQ(harness.got<protocol::EmbedReply>("c").size(), 2U);
  EXPECT_EQ(harness.got<protocol::ErrorReply>("c").size(), 1U);
}

TEST(Core, TheTemplateBeforeEachTextCountsForTheBound) {
  CoreHarness harness;
  protocol::EmbedRequest request = request_of(1, std::vector<std::string>(4096, "x"));
  request.spec.query = true;
  request.spec.instruction.assign(protocol::kInstructionBytesMax, 'i');  // 32 MiB of texts.
  for (; request.request_id <= 5; ++request.request_id) {
    harness.from_client("c", request);
  }
  const auto refused = harness.got<protocol::ErrorReply>("c");
  ASSERT_GE(refused.size(), 1U);
  EXPECT_LE(refused.size(), 2U);
  EXPECT_EQ(refused[0].code, ErrorCode::kResourceExhausted);
}

TEST(Core, AJobsFingerprintIsThatOfItsFirstResult) {
  CoreHarness harness;
  harness.add_worker("w");
  const JobId job = harness.open_job("c", "key");
  harness.submit("c", job, 0, {"text 1"});
  EXPECT_TRUE(harness.ledger.load()[0].fingerprint.empty());
  harness.work();
  EXPECT_EQ(harness.ledger.load()[0].fingerprint, std::string(64, 'f'));
}

// The ledger holds the fingerprint that versions before had, and a chunk that waits.
TEST(Core, AJobOfAFormerVersionGoesOnUnderTheNewFingerprint) {
  const std::string former(64, 'a'), exact(64, '1');
  CoreHarness before;
  before.add_worker("w", {.former_fingerprint = former});
  JobId job = before.open_job("c", "key");
  before.submit("c", job, 0, {"text 0"});
  before.work();
  before.submit("c", job, 1, {"text 1"});
  ASSERT_EQ(before.ledger.load()[0].fingerprint, former);

  CoreHarness now(CoreHarness::default_options(), before.ledger);
  job = now.open_job("c", "key");
  now.add_worker("another", {.fingerprint = exact, .former_fingerprint = std::string(64, 'b')});
  now.pass(kSecond);
  EXPECT_TRUE(now.batches.empty());
  now.add_worker("w", {.fingerprint = exact, .former_fingerprint = former});
  now.pass(kSecond);
  EXPECT_EQ(now.batches.size(), 1U);
  now.work();
  EXPECT_EQ(now.got<protocol::ChunkResult>("c").size(), 2U);
  EXPECT_EQ(now.ledger.load()[0].fingerprint, exact);
  now.from_client("c", protocol::StatusRequest{.request_id = 5});
  const auto status = now.got<protocol::StatusReply>("c");
  ASSERT_EQ(status.size(), 1U);
  EXPECT_EQ(status[0].models[0].fingerprint, exact);
  EXPECT_EQ(status[0].models[0].former_fingerprint, former);
  EXPECT_EQ(status[0].workers[0].fingerprint, exact);
}

// A client takes its results one after the other, as fast as they come.
std::set<std::uint32_t> acknowledge_all(CoreHarness& harness, const std::string& peer) {
  std::set<std::uint32_t> chunks;
  for (std::size_t i = 0; i < harness.got<protocol::ChunkResult>(peer).size(); ++i) {
    const protocol::ChunkResult result = harness.got<protocol::ChunkResult>(peer)[i];
    chunks.insert(result.chunk);
    harness.from_client(peer, protocol::ResultAck{result.job_id, result.chunk});
  }
  return chunks;
}

TEST(Core, AClientThatDoesNotReadIsSentLittleAndHoldsUpNobody) {
  CoreOptions options = CoreHarness::default_options();
  options.jobs.unacknowledged_bytes_max = 2000;  // Three results of four vectors.
  CoreHarness harness(std::move(options));
  harness.add_worker("w");
  const JobId job = harness.open_job("deaf", "a");
  const JobId other = harness.open_job("other", "b");
  const auto submit = [&](const std::string& peer, const JobId& id, std::uint32_t chunk) {
    std::vector<std::string> texts;
    for (int i = 0; i < 4; ++i) {
      texts.push_back(id + " " + std::to_string(chunk) + " " + std::to_string(i));
    }
    harness.submit(peer, id, chunk, texts);
  };
  for (std::uint32_t chunk = 0; chunk < 60; ++chunk) {
    submit("deaf", job, chunk);
  }
  harness.work();
  for (int minute = 0; minute < 60; ++minute) {
    harness.pass(60 * kSecond);
    harness.add_worker("w");  // Its heartbeats are not this test's.
  }
  EXPECT_EQ(harness.got<protocol::ChunkResult>("deaf").size(), 3U);
  EXPECT_LE(harness.core.unacknowledged_bytes("deaf"), 2000U);
  for (std::uint32_t chunk = 0; chunk < 10; ++chunk) {
    submit("other", other, chunk);
  }
  harness.work();
  EXPECT_EQ(acknowledge_all(harness, "other").size(), 10U);
  EXPECT_EQ(acknowledge_all(harness, "deaf").size(), 60U) << "all that waited in the ledger";
  EXPECT_EQ(harness.core.unacknowledged_bytes("deaf"), 0U);
}

TEST(Core, AClientThatOpensItsJobAgainGetsWhatItDidNotAcknowledge) {
  CoreHarness harness;
  harness.add_worker("w");
  const JobId job = harness.open_job("c", "key");
  for (std::uint32_t chunk = 0; chunk < 5; ++chunk) {
    harness.submit("c", job, chunk, {"text " + std::to_string(chunk)});
  }
  harness.work();
  ASSERT_EQ(harness.got<protocol::ChunkResult>("c").size(), 5U);
  harness.from_client("c", protocol::ResultAck{job, 2});
  harness.open_job("c, on a new connection", "key");
  EXPECT_EQ(acknowledge_all(harness, "c, on a new connection"),
            (std::set<std::uint32_t>{0, 1, 3, 4}));
  EXPECT_EQ(harness.core.unacknowledged_bytes("c"), 0U);
}

// Opens "key" with an opener; whether the coordinator refused.
bool open_as(CoreHarness& harness, const std::string& peer, std::uint64_t opener,
             std::uint64_t request_id) {
  harness.from_client(
      peer, protocol::OpenJob{.request_id = request_id, .job_key = "key", .opener = opener});
  const auto refused = harness.got<protocol::ErrorReply>(peer);
  return std::ranges::any_of(refused, [&](const protocol::ErrorReply& error) {
    EXPECT_EQ(error.code, ErrorCode::kConflict);
    return error.request_id == request_id;
  });
}

TEST(Core, WhoOpensAJobLastHasItAndTheOneBeforeHearsOfIt) {
  CoreHarness harness;
  harness.add_worker("w");
  const auto revoked = [&](const std::string& peer) {
    std::set<std::uint64_t> requests;
    for (const auto& error : harness.got<protocol::ErrorReply>(peer)) {
      requests.insert(error.request_id);
    }
    return requests;
  };
  EXPECT_FALSE(open_as(harness, "a", 11, 5));
  const JobId job = harness.got<protocol::JobOpened>("a").back().job_id;
  harness.submit("a", job, 0, {"text"});
  harness.work();
  EXPECT_FALSE(open_as(harness, "b", 12, 6));
  EXPECT_EQ(revoked("a"), std::set<std::uint64_t>{5});
  harness.from_client("a", protocol::ResultAck{job, 0});
  EXPECT_EQ(harness.core.unacknowledged_bytes("a"), 0U);
  EXPECT_GT(harness.core.unacknowledged_bytes("b"), 0U) << "not given up by who had it before";

  EXPECT_FALSE(open_as(harness, "b, on a new connection", 12, 7));
  EXPECT_TRUE(revoked("b").empty()) << "it is the same one";
  EXPECT_TRUE(open_as(harness, "a, which did not hear", 11, 8)) << "it does not get the job back";
  EXPECT_EQ(acknowledge_all(harness, "b, on a new connection"), std::set<std::uint32_t>{0});

  EXPECT_FALSE(open_as(harness, "b, on a new connection", 13, 9)) << "anew by the same client";
  EXPECT_EQ(revoked("b, on a new connection"), std::set<std::uint64_t>{7});
}

TEST(Core, AChunkThatTheFormerClientSendsLateIsAcknowledgedToTheNewOne) {
  CoreHarness harness;
  const JobId job = harness.open_job("a", "key");
  EXPECT_FALSE(open_as(harness, "b", 12, 6));
  harness.ledger_answers = false;
  harness.submit("b", job, 0, {"text"});
  harness.submit("a", job, 0, {"text"});
  const RunLedger accept = harness.operations.back();
  harness.step(LedgerReply{accept.id, harness.ledger.run(accept.operation, 1)});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("b").size(), 1U);
}

TEST(Core, WhoHadAJobWhenItEndedHearsOfTheEndBesideTheNext) {
  CoreHarness harness;
  harness.add_worker("w");
  EXPECT_FALSE(open_as(harness, "a", 11, 5));
  const JobId job = harness.got<protocol::JobOpened>("a").back().job_id;
  harness.submit("a", job, 0, {"text"});
  harness.work();
  harness.from_client("a", protocol::CloseJob{.request_id = 6, .job_id = job, .chunks = 1});
  harness.ledger_answers = false;
  harness.from_client("a", protocol::ResultAck{job, 0});
  const auto answer_last = [&] {
    const RunLedger last = harness.operations.back();
    harness.step(LedgerReply{last.id, harness.ledger.run(last.operation, 1)});
  };
  answer_last();  // The acknowledgement; now the end is being written.
  EXPECT_FALSE(open_as(harness, "b", 12, 7));
  answer_last();
  for (const std::string peer : {"a", "b"}) {
    const auto updates = harness.got<protocol::JobUpdate>(peer);
    ASSERT_FALSE(updates.empty()) << peer;
    EXPECT_EQ(updates.back().progress.state, protocol::JobState::kDone) << peer;
  }
  EXPECT_TRUE(harness.got<protocol::ErrorReply>("a").empty());
}

TEST(Core, MoreOrFewerItemsUnderTheKeyOfAJobAreAConflict) {
  CoreHarness harness;
  const JobId job = harness.open_job("a", "key");
  harness.submit("a", job, 0, {"text"});
  harness.submit("a", job, 1, {"more text"});
  harness.from_client("a", protocol::CloseJob{.request_id = 5, .job_id = job, .chunks = 1});
  EXPECT_EQ(harness.got<protocol::ErrorReply>("a").back().code, ErrorCode::kConflict);
  harness.from_client("a", protocol::CloseJob{.request_id = 6, .job_id = job, .chunks = 2});
  harness.submit("a", job, 2, {"still more text"});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("a").back().code, ErrorCode::kConflict);
  harness.from_client("a", protocol::CloseJob{.request_id = 7, .job_id = job, .chunks = 3});
  EXPECT_EQ(harness.got<protocol::ErrorReply>("a").back().code, ErrorCode::kConflict);
}

TEST(Core, WhatIsBeingAcknowledgedIsNotPromisedToTheNextClient) {
  CoreHarness harness;
  harness.add_worker("w");
  const JobId job = harness.open_job("a", "key");
  harness.submit("a", job, 0, {"text"});
  harness.work();
  harness.ledger_answers = false;
  harness.from_client("a", protocol::ResultAck{job, 0});
  EXPECT_FALSE(open_as(harness, "b", 12, 6));
  using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
  EXPECT_EQ(harness.got<protocol::JobOpened>("b").back().delivered, (Ranges{{0, 0}}));
}

TEST(Core, AClientThatLeavesAJobHoldsNothingBack) {
  CoreHarness harness;
  harness.add_worker("w");
  EXPECT_FALSE(open_as(harness, "a", 11, 5));
  const JobId job = harness.got<protocol::JobOpened>("a").back().job_id;
  harness.submit("a", job, 0, {"text"});
  harness.work();
  EXPECT_GT(harness.core.unacknowledged_bytes("a"), 0U);
  harness.from_client("a", protocol::LeaveJob{.job_id = job, .opener = 10});
  harness.from_client("b", protocol::LeaveJob{.job_id = job, .opener = 11});
  harness.from_client("a", protocol::LeaveJob{.job_id = "none", .opener = 11});
  EXPECT_GT(harness.core.unacknowledged_bytes("a"), 0U) << "that was another taking up, or job";
  harness.from_client("a", protocol::LeaveJob{.job_id = job, .opener = 11});
  EXPECT_EQ(harness.core.unacknowledged_bytes("a"), 0U);
  EXPECT_FALSE(open_as(harness, "b", 12, 6));
  EXPECT_TRUE(harness.got<protocol::ErrorReply>("a").empty());
  EXPECT_EQ(acknowledge_all(harness, "b"), std::set<std::uint32_t>{0});
}

TEST(Core, AChunkIsAcknowledgedToTheConnectionThatSentItLast) {
  CoreHarness harness;
  const JobId job = harness.open_job("c", "key");
  harness.ledger_answers = false;
  harness.submit("c", job, 0, {"text"});
  harness.open_job("c, on a new connection", "key");
  harness.submit("c, on a new connection", job, 0, {"text"});
  const RunLedger accept = harness.operations.back();
  harness.step(LedgerReply{.id = accept.id, .reply = harness.ledger.run(accept.operation, 1)});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("c, on a new connection").size(), 1U);
  EXPECT_TRUE(harness.got<protocol::ChunkAck>("c").empty());
}

TEST(Core, AnEndedJobIsKnownUntilTheLedgerHasForgottenIt) {
  CoreOptions options = CoreHarness::default_options();
  options.jobs.keep_ended_us = 10 * kSecond;
  CoreHarness harness(std::move(options));
  const JobId job = harness.open_job("c", "key");
  harness.from_client("c", protocol::CancelJob{.request_id = 2, .job_id = job});
  harness.ledger_status = ledger::Status::kFailed;
  harness.pass(20 * kSecond);
  EXPECT_EQ(harness.open_job("c", "key"), job);
  EXPECT_EQ(harness.got<protocol::JobOpened>("c").back().state, protocol::JobState::kCancelled);
  harness.ledger_status = ledger::Status::kDone;
  harness.pass(kSecond);
  harness.open_job("c", "key");
  EXPECT_EQ(harness.got<protocol::JobOpened>("c").back().state, protocol::JobState::kOpen);
}

// Results that the ledger will have to hold when what is in work ends.
class OwedResults : public ::testing::Test {
 protected:
  static CoreOptions options_with_room(std::uint64_t items) {
    CoreOptions options = CoreHarness::default_options();
    options.jobs.owed_bytes_max = items * simulation::kRowBytes;
    return options;
  }
  // Whether a chunk of so many items is taken in.
  static ErrorCode submit(CoreHarness& harness, const JobId& job, std::uint32_t chunk,
                          std::size_t items) {
    harness.submit("c", job, chunk, std::vector<std::string>(items, "text"));
    return harness.got<protocol::ChunkAck>("c").back().code;
  }
};

TEST_F(OwedResults, OnlySoManyAreAcceptedAheadOfTheirResults) {
  CoreHarness harness(options_with_room(12));
  const JobId job = harness.open_job("c", "key");
  EXPECT_EQ(submit(harness, job, 0, 8), ErrorCode::kOk);
  EXPECT_EQ(submit(harness, job, 1, 5), ErrorCode::kResourceExhausted);
  EXPECT_GT(harness.got<protocol::ChunkAck>("c").back().retry_after_ms, 0U);
  EXPECT_EQ(submit(harness, job, 1, 4), ErrorCode::kOk);
  harness.add_worker("w");
  harness.work();
  EXPECT_EQ(submit(harness, job, 2, 12), ErrorCode::kOk)
      << "results are there, acknowledged or not";
}

TEST_F(OwedResults, EachJobHasItsShare) {
  CoreHarness harness(options_with_room(12));
  const JobId first = harness.open_job("c", "first");
  const JobId second = harness.open_job("c", "second");
  EXPECT_EQ(submit(harness, first, 0, 12), ErrorCode::kOk);
  EXPECT_EQ(submit(harness, first, 1, 1), ErrorCode::kResourceExhausted);
  EXPECT_EQ(submit(harness, second, 0, 3), ErrorCode::kOk);
  EXPECT_EQ(submit(harness, second, 1, 3), ErrorCode::kOk);
  EXPECT_EQ(submit(harness, second, 2, 1), ErrorCode::kResourceExhausted);
  harness.from_client("c", protocol::CancelJob{.request_id = 9, .job_id = first});
  EXPECT_EQ(submit(harness, second, 2, 6), ErrorCode::kOk);
}

TEST_F(OwedResults, AJobWithNothingInWorkMaySendOneChunk) {
  CoreHarness harness(options_with_room(2));
  const JobId job = harness.open_job("c", "key");
  EXPECT_EQ(submit(harness, job, 0, 100), ErrorCode::kOk);
  EXPECT_EQ(submit(harness, job, 1, 1), ErrorCode::kResourceExhausted);
}

TEST_F(OwedResults, WhatTheLedgerRefusesIsNotOwed) {
  CoreHarness harness(options_with_room(12));
  const JobId job = harness.open_job("c", "key");
  EXPECT_EQ(submit(harness, job, 0, 4), ErrorCode::kOk);
  harness.ledger_status = ledger::Status::kFailed;
  EXPECT_EQ(submit(harness, job, 1, 8), ErrorCode::kUnavailable);
  harness.ledger_status = ledger::Status::kDone;
  EXPECT_EQ(submit(harness, job, 1, 8), ErrorCode::kOk);
  EXPECT_EQ(submit(harness, job, 2, 1), ErrorCode::kResourceExhausted);
}

TEST_F(OwedResults, AreCountedAgainAfterARestart) {
  CoreHarness before(options_with_room(12));
  const JobId job = before.open_job("c", "key");
  EXPECT_EQ(submit(before, job, 0, 8), ErrorCode::kOk);
  CoreHarness after(options_with_room(12), before.ledger);
  EXPECT_EQ(after.open_job("c", "key"), job);
  EXPECT_EQ(submit(after, job, 1, 5), ErrorCode::kResourceExhausted);
  EXPECT_EQ(submit(after, job, 1, 4), ErrorCode::kOk);
}

TEST(Core, ALedgerThatDoesNotAnswerHoldsOnlySoMuch) {
  CoreOptions options = CoreHarness::default_options();
  options.jobs.ledger_bytes_max = 100'000;
  CoreHarness harness(std::move(options));
  const JobId job = harness.open_job("c", "key");
  harness.ledger_answers = false;
  for (std::uint32_t chunk = 0; chunk < 60; ++chunk) {
    harness.submit("c", job, chunk, {std::string(10'000, 'x')});
  }
  const auto acks = harness.got<protocol::ChunkAck>("c");
  EXPECT_GE(acks.size(), 50U);
  for (const protocol::ChunkAck& ack : acks) {
    EXPECT_EQ(ack.code, ErrorCode::kResourceExhausted);
    EXPECT_GT(ack.retry_after_ms, 0U);
  }
}

}  // namespace
}  // namespace tessera::coordinator
