#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/wire/chunk_digest.hpp"
#include "tests/coordinator/core/core_harness.hpp"

// A job's chunk is the same chunk, for whoever sends it again.
namespace tessera::coordinator {
namespace {

using ::testing::HasSubstr;

class JobIdentity : public ::testing::Test {
 protected:
  void SetUp() override {
    harness.add_worker("w");
    job = harness.open_job("c", "key");
    harness.submit("c", job, 0, {"one", "two"});
  }
  protocol::ChunkAck submit(std::uint32_t chunk, const std::vector<std::string>& texts) {
    harness.submit("c", job, chunk, texts);
    return harness.got<protocol::ChunkAck>("c").back();
  }
  protocol::ChunkAck ask(std::uint32_t chunk, const std::vector<std::string>& texts) {
    const auto digest = protocol::digest_of(simulation::block_of(texts));
    harness.from_client("c",
                        protocol::SubmitChunk{.job_id = job,
                                              .chunk = chunk,
                                              .items = {},
                                              .digest = std::vector(digest.begin(), digest.end())});
    return harness.got<protocol::ChunkAck>("c").back();
  }
  void expect_only_the_same(const std::string& when) {
    EXPECT_EQ(submit(0, {"one", "two"}).code, ErrorCode::kOk) << when;
    EXPECT_EQ(ask(0, {"one", "two"}).code, ErrorCode::kOk) << when;
    const std::vector<std::vector<std::string>> others = {
        {"one"}, {"one", "two", ""}, {"onet", "wo"}, {"two", "one"}, {"one", "twO"}};
    for (const std::vector<std::string>& other : others) {
      for (const protocol::ChunkAck& ack : {submit(0, other), ask(0, other)}) {
        EXPECT_EQ(ack.code, ErrorCode::kConflict) << when;
        EXPECT_EQ(ack.retry_after_ms, 0U);
        EXPECT_THAT(ack.message, HasSubstr("chunk 0 of job \"key\""));
      }
    }
  }

  CoreHarness harness;
  JobId job;
};

TEST_F(JobIdentity, HoldsInEveryStageOfAChunk) {
  expect_only_the_same("accepted");
  harness.work();
  ASSERT_EQ(harness.got<protocol::ChunkResult>("c").size(), 1U);
  expect_only_the_same("sent");
  harness.from_client("c", protocol::ResultAck{job, 0});
  expect_only_the_same("delivered");
  harness.from_client("c", protocol::CloseJob{.request_id = 5, .job_id = job, .chunks = 1});
  ASSERT_EQ(harness.got<protocol::JobUpdate>("c").back().progress.state, protocol::JobState::kDone);
  expect_only_the_same("done");
}

TEST_F(JobIdentity, HoldsWhileTheChunkIsWrittenDown) {
  harness.ledger_answers = false;
  harness.submit("c", job, 1, {"three"});
  const std::size_t before = harness.got<protocol::ChunkAck>("c").size();
  harness.submit("other", job, 1, {"four"});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("other").back().code, ErrorCode::kConflict);
  harness.from_client("other", protocol::OpenJob{.request_id = 9, .job_key = "key"});
  harness.submit("other", job, 1, {"three"});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("other").size(), 1U) << "the answer follows";
  const RunLedger accept = harness.operations.back();
  harness.step(LedgerReply{accept.id, harness.ledger.run(accept.operation, harness.epoch)});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("other").back().code, ErrorCode::kOk);
  EXPECT_EQ(harness.got<protocol::ChunkAck>("c").size(), before);
}

TEST_F(JobIdentity, OutlivesTheCoordinator) {
  harness.work();
  harness.from_client("c", protocol::ResultAck{job, 0});
  CoreHarness next(CoreHarness::default_options(), harness.ledger);
  const JobId same = next.open_job("c", "key");
  ASSERT_EQ(same, job);
  next.submit("c", job, 0, {"one", "two"});
  EXPECT_EQ(next.got<protocol::ChunkAck>("c").back().code, ErrorCode::kOk);
  next.submit("c", job, 0, {"one", "three"});
  EXPECT_EQ(next.got<protocol::ChunkAck>("c").back().code, ErrorCode::kConflict);
}

TEST_F(JobIdentity, AQuestionIsNoChunk) {
  EXPECT_EQ(ask(1, {"three"}).code, ErrorCode::kNotFound);
  EXPECT_EQ(submit(1, {"three"}).code, ErrorCode::kOk);
  harness.from_client("c", protocol::SubmitChunk{.job_id = job, .chunk = 1, .digest = {1, 2}});
  EXPECT_EQ(harness.got<protocol::ChunkAck>("c").back().code, ErrorCode::kInvalidArgument);
}

TEST_F(JobIdentity, ALedgerThatIsAwayIsAskedLater) {
  harness.work();
  harness.from_client("c", protocol::ResultAck{job, 0});
  harness.step(LedgerState{false});
  const protocol::ChunkAck ack = submit(0, {"one", "two"});
  EXPECT_EQ(ack.code, ErrorCode::kUnavailable);
  EXPECT_GT(ack.retry_after_ms, 0U);
  harness.step(LedgerState{true});
  EXPECT_EQ(submit(0, {"one", "two"}).code, ErrorCode::kOk);
}

TEST_F(JobIdentity, AnotherNumberOfItemsAChunkIsAConflict) {
  const auto open = [&](std::uint32_t chunk_items) {
    harness.from_client(
        "d", protocol::OpenJob{
                 .request_id = 1, .job_key = "cut", .spec = {}, .chunk_items = chunk_items});
  };
  open(100);
  open(50);
  const auto refused = harness.got<protocol::ErrorReply>("d");
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].code, ErrorCode::kConflict);
  EXPECT_THAT(refused[0].message, HasSubstr("100 items a chunk, not 50"));
  open(0);  // A client that does not say it.
  open(100);
  EXPECT_EQ(harness.got<protocol::JobOpened>("d").size(), 3U);
  CoreHarness next(CoreHarness::default_options(), harness.ledger);
  next.from_client(
      "d", protocol::OpenJob{.request_id = 1, .job_key = "cut", .spec = {}, .chunk_items = 50});
  EXPECT_EQ(next.got<protocol::ErrorReply>("d").size(), 1U) << "after a restart, too";
}

TEST_F(JobIdentity, ABadMessageIsRefusedToWhoWaitsForIt) {
  const Error error{ErrorCode::kInvalidArgument, "field 2 has a wrong type or value"};
  harness.step(BadFromClient{"c", error, {.request_id = 77}});
  EXPECT_EQ(harness.got<protocol::ErrorReply>("c").back().request_id, 77U);
  harness.step(BadFromClient{"c", error, {.job_id = job, .chunk = 3}});
  const auto ack = harness.got<protocol::ChunkAck>("c").back();
  EXPECT_EQ(ack.job_id, job);
  EXPECT_EQ(ack.chunk, 3U);
  EXPECT_EQ(ack.code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ack.message, error.message);
}

}  // namespace
}  // namespace tessera::coordinator
