#include "coordinator/core/flow/cache_gate.hpp"

#include <gtest/gtest.h>

#include "tests/coordinator/core/core_harness.hpp"

namespace tessera::coordinator {
namespace {

constexpr Micros kMs = 1000;
constexpr Micros kSecond = 1000 * kMs;

TEST(CacheGate, ShutsAfterSomeLateAnswersAndTriesAgainAfterLongerAndLongerPauses) {
  CacheGate gate;
  for (int i = 0; i < 2; ++i) {
    gate.on_late(0);
    EXPECT_TRUE(gate.may_ask(0));
  }
  gate.on_answer();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(gate.may_ask(0)) << "an answer in between begins the count again";
    gate.on_late(0);
  }
  EXPECT_FALSE(gate.is_open());
  Micros now = 0;
  for (const Micros pause : {1, 2, 4, 8, 16, 30, 30}) {
    EXPECT_FALSE(gate.may_ask(now + pause * kSecond - 1));
    now += pause * kSecond;
    EXPECT_TRUE(gate.may_ask(now)) << pause;
    EXPECT_FALSE(gate.may_ask(now)) << "one tries, the others do not wait for it";
    gate.on_late(now);
  }
  EXPECT_TRUE(gate.may_ask(now + 30 * kSecond));
  gate.on_answer();
  EXPECT_TRUE(gate.is_open() && gate.may_ask(now + 30 * kSecond));
}

// A query to the core whose cache says nothing; the number of 50 ms ticks until its answer.
int ticks_until_answered(CoreHarness& harness, std::uint64_t request_id) {
  const std::size_t before = harness.got<protocol::EmbedReply>("c").size();
  harness.from_client("c", protocol::EmbedRequest{.request_id = request_id,
                                                  .items = simulation::block_of(
                                                      {"text " + std::to_string(request_id)})});
  harness.work();
  int ticks = 0;
  for (; harness.got<protocol::EmbedReply>("c").size() == before && ticks < 100; ++ticks) {
    harness.pass(50 * kMs);
    harness.add_worker("w");  // Its heartbeats are not this test's.
    harness.work();
  }
  return ticks;
}

TEST(CacheGate, ACacheThatHangsCostsAFewQueriesOneTickAndTheOthersNothing) {
  CoreHarness harness;
  harness.add_worker("w");
  EXPECT_EQ(ticks_until_answered(harness, 1), 0);
  harness.cache_answers = false;
  for (std::uint64_t id = 2; id < 5; ++id) {
    EXPECT_EQ(ticks_until_answered(harness, id), 1);
  }
  const std::size_t asked = harness.cache_gets;
  const std::size_t written = harness.cache_puts;
  for (std::uint64_t id = 5; id < 15; ++id) {
    EXPECT_EQ(ticks_until_answered(harness, id), 0);
  }
  EXPECT_EQ(harness.cache_gets, asked) << "nothing waits in the connection that hangs";
  EXPECT_EQ(harness.cache_puts, written);
  harness.now += 2 * kSecond;
  EXPECT_EQ(ticks_until_answered(harness, 15), 1) << "one tries";
  EXPECT_EQ(ticks_until_answered(harness, 16), 0);
  harness.cache_answers = true;
  harness.now += 10 * kSecond;
  for (std::uint64_t id = 17; id < 20; ++id) {
    EXPECT_EQ(ticks_until_answered(harness, id), 0);
  }
  EXPECT_EQ(harness.cache_gets, asked + 4) << "every query asks again";
}

TEST(CacheGate, AnAnswerThatComesTooLateChangesNothing) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.cache_answers = false;
  EXPECT_EQ(ticks_until_answered(harness, 1), 1);
  ASSERT_EQ(harness.unanswered_gets.size(), 1U);
  harness.step(CacheReply{.id = harness.unanswered_gets[0], .values = {protocol::Bytes(9)}});
  EXPECT_EQ(harness.got<protocol::EmbedReply>("c").size(), 1U);
}

TEST(CacheGate, ChunksOfJobsHaveMoreTimeUnlessAQueryJoinsThem) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.cache_answers = false;
  const JobId job = harness.open_job("j", "key");
  harness.submit("j", job, 0, {"slow"});
  harness.pass(100 * kMs);
  harness.work();
  EXPECT_TRUE(harness.got<protocol::ChunkResult>("j").empty());
  harness.from_client(
      "c", protocol::EmbedRequest{.request_id = 1, .items = simulation::block_of({"slow"})});
  harness.pass(50 * kMs);
  harness.work();
  EXPECT_EQ(harness.got<protocol::EmbedReply>("c").size(), 1U);
  EXPECT_EQ(harness.got<protocol::ChunkResult>("j").size(), 1U);
  harness.submit("j", job, 1, {"another"});
  for (int tick = 0; tick < 11; ++tick) {
    harness.pass(50 * kMs);
    harness.work();
  }
  EXPECT_EQ(harness.got<protocol::ChunkResult>("j").size(), 2U);
}

}  // namespace
}  // namespace tessera::coordinator
