#include "coordinator/core/ledger_watch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/core/core_harness.hpp"

namespace tessera::coordinator {
namespace {

using ledger::Status;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Trust = LedgerWatch::Trust;

constexpr Micros kSecond = 1'000'000;
constexpr std::uint64_t kOwnTerm = 20;
constexpr std::uint64_t kTermBefore = 15;

LedgerWatch watch_of() {
  log::set_level(log::Level::kOff);
  return LedgerWatch({.id = "a1", .term = kOwnTerm, .term_before = kTermBefore});
}

// Answers the last thing that was asked.
Actions answer(LedgerWatch& watch, const Actions& asked, Status status) {
  Actions actions;
  const auto& run = std::get<RunLedger>(asked.back());
  EXPECT_TRUE(std::holds_alternative<ledger::CheckTerm>(run.operation));
  EXPECT_TRUE(watch.on_reply({.id = run.id, .reply = {.status = status}}, actions));
  return actions;
}

TEST(LedgerWatch, AsksEachSecondAndOnceAtATime) {
  LedgerWatch watch = watch_of();
  Actions asked;
  watch.tick(kSecond, asked);
  ASSERT_EQ(asked.size(), 1U);
  watch.tick(5 * kSecond, asked);
  EXPECT_EQ(asked.size(), 1U) << "the first is not answered";
  EXPECT_THAT(answer(watch, asked, Status::kDone), IsEmpty());
  watch.tick(5 * kSecond, asked);
  EXPECT_EQ(asked.size(), 2U);
  EXPECT_THAT(answer(watch, asked, Status::kFailed), IsEmpty());
  watch.tick(5 * kSecond + kSecond / 2, asked);
  EXPECT_EQ(asked.size(), 2U);
  watch.on_state(false, 6 * kSecond);
  watch.tick(8 * kSecond, asked);
  EXPECT_EQ(asked.size(), 2U) << "nobody is there to answer";
  EXPECT_EQ(watch.away_s(8 * kSecond), 2);
  watch.on_state(true, 9 * kSecond);
  watch.tick(9 * kSecond, asked);
  EXPECT_EQ(asked.size(), 3U);
  EXPECT_EQ(watch.away_s(9 * kSecond), 0);
}

TEST(LedgerWatch, AnyAnswerMayEndTheTermAndDoesSoOnce) {
  for (const bool fenced : {true, false}) {
    LedgerWatch watch = watch_of();
    Actions actions;
    const Status status = fenced ? Status::kFenced : Status::kWentBack;
    EXPECT_TRUE(watch.on_reply({.id = 7, .reply = {.status = status}}, actions));
    EXPECT_TRUE(watch.on_reply({.id = 8, .reply = {.status = status}}, actions));
    ASSERT_EQ(actions.size(), 1U);
    if (fenced) {
      EXPECT_THAT(std::get<Stop>(actions[0]).error, HasSubstr("another coordinator"));
    } else {
      EXPECT_EQ(std::get<BeginTerm>(actions[0]).above, kOwnTerm);
    }
    watch.tick(100 * kSecond, actions);
    EXPECT_EQ(actions.size(), 1U);
  }
  LedgerWatch watch = watch_of();
  Actions actions;
  EXPECT_FALSE(watch.on_reply({.id = 7, .reply = {.status = Status::kFailed}}, actions));
  EXPECT_FALSE(watch.on_reply({.id = 7, .reply = {.status = Status::kDone}}, actions));
  EXPECT_THAT(actions, IsEmpty());
}

TEST(LedgerWatch, WhatOthersHaveSeenTellsWhatWasLost) {
  struct Case {
    Trust trust;
    std::string ledger_id;
    std::uint64_t term_seen;
    bool follows;
    std::string warning;
    bool asks;
  };
  const Case cases[] = {
      {Trust::kWorker, "", 0, true, "", false},  // Its first coordinator, or an earlier version.
      {Trust::kWorker, "", 99, true, "", false},
      {Trust::kWorker, "a1", kTermBefore - 9, true, "", false},
      {Trust::kWorker, "a1", kTermBefore, true, "", false},
      {Trust::kWorker, "a1", kTermBefore + 1, true, "lost its last writes", false},
      {Trust::kWorker, "a1", kOwnTerm - 1, true, "lost its last writes", false},
      {Trust::kWorker, "a1", kOwnTerm, true, "", false},
      {Trust::kWorker, "a1", kOwnTerm + 1, false, "", true},
      {Trust::kWorker, "b2", 3, true, "another ledger", false},
      {Trust::kWorker, "b2", kOwnTerm + 100, true, "another ledger", false},
      {Trust::kClient, "a1", kTermBefore + 1, true, "lost its last writes", false},
      {Trust::kClient, "a1", kOwnTerm + 1, true, "older copy", false},
      {Trust::kClient, "b2", 1, true, "another ledger", false},
  };
  for (const Case& c : cases) {
    LedgerWatch watch = watch_of();
    Actions actions;
    EXPECT_EQ(watch.on_claim(c.trust, "worker w", c.ledger_id, c.term_seen, actions), c.follows);
    EXPECT_EQ(watch.info().warning.empty(), c.warning.empty()) << watch.info().warning;
    EXPECT_THAT(watch.info().warning, HasSubstr(c.warning));
    EXPECT_EQ(actions.size(), c.asks ? 1U : 0U) << c.ledger_id << " " << c.term_seen;
  }
}

TEST(LedgerWatch, TheLedgerSaysWhoIsRightWhenAWorkerKnowsANewerTerm) {
  for (const Status status : {Status::kDone, Status::kFenced, Status::kFailed}) {
    LedgerWatch watch = watch_of();
    Actions asked;
    EXPECT_FALSE(watch.on_claim(Trust::kWorker, "worker w", "a1", 30, asked));
    EXPECT_FALSE(watch.on_claim(Trust::kWorker, "worker v", "a1", 25, asked));
    ASSERT_EQ(asked.size(), 1U) << "an older claim adds nothing";
    const Actions concluded = answer(watch, asked, status);
    if (status == Status::kDone) {
      ASSERT_EQ(concluded.size(), 1U);
      const auto& begin = std::get<BeginTerm>(concluded[0]);
      EXPECT_EQ(begin.above, 30U);
      EXPECT_THAT(begin.why, HasSubstr("worker w knows term 30"));
    } else if (status == Status::kFenced) {
      ASSERT_EQ(concluded.size(), 1U);
      EXPECT_TRUE(std::holds_alternative<Stop>(concluded[0]));
    } else {
      EXPECT_THAT(concluded, IsEmpty());
      watch.tick(10 * kSecond, asked);
      EXPECT_EQ(asked.size(), 3U) << "it is asked again, beside the question of each second";
    }
  }
}

TEST(Core, AWorkerThatKnowsANewerTermIsFollowedUp) {
  CoreHarness harness;
  protocol::WorkerHello hello;
  hello.ledger_id = harness.ledger_id;
  hello.term_seen = harness.epoch + 3;
  harness.add_worker("w", hello);
  ASSERT_EQ(harness.to_worker["w"].size(), 1U);
  const auto& refusal = std::get<protocol::ErrorReply>(harness.to_worker["w"][0]);
  EXPECT_EQ(refusal.code, ErrorCode::kUnavailable) << "so that it asks again";
  ASSERT_EQ(harness.terms.size(), 1U) << "the ledger said that the term is the newest it knows";
  EXPECT_EQ(harness.terms[0].above, hello.term_seen);
  hello.term_seen = ~std::uint64_t{0};
  harness.add_worker("v", hello);
  EXPECT_EQ(std::get<protocol::ErrorReply>(harness.to_worker["v"].back()).code,
            ErrorCode::kInvalidArgument);
}

TEST(Core, ALedgerThatIsEmptiedOrOlderEndsTheTerm) {
  using Change = void (*)(simulation::FakeLedger&, const simulation::FakeLedger&);
  const Change changes[] = {
      [](auto& ledger, const auto&) { ledger.empty(); },
      [](auto& ledger, const auto& older) { ledger.restore(older); },
  };
  for (const Change change : changes) {
    CoreHarness harness;
    const simulation::FakeLedger older = harness.ledger;
    const JobId job = harness.open_job("c", "key");
    harness.submit("c", job, 0, {"text"});
    change(harness.ledger, older);
    harness.pass(2 * kSecond);
    ASSERT_EQ(harness.terms.size(), 1U) << "without anybody asking for anything";
    EXPECT_EQ(harness.terms[0].above, harness.epoch);
    EXPECT_TRUE(harness.stops.empty());
  }
}

TEST(Core, StatusShowsTheLedgerAndWhoWasRefused) {
  CoreHarness harness;
  harness.add_worker("good");
  protocol::WorkerHello other{.device_kind = "sm90"};
  for (int i = 0; i < 3; ++i) {
    harness.pass(kSecond);
    other.name = "bad";
    other.model = "m";
    other.tokenizer_hash = "t";
    other.hidden_size = simulation::kHiddenSize;
    other.vocab_size = simulation::kVocabSize;
    other.max_batch_tokens = other.max_batch_sequences = other.max_seqlen = 64;
    other.fingerprint = std::string(64, 'e');
    harness.step(FromWorker{"peer " + std::to_string(i), other});
  }
  const auto& refusal = std::get<protocol::ErrorReply>(harness.to_worker["peer 2"].back());
  EXPECT_EQ(refusal.code, ErrorCode::kConflict);
  EXPECT_THAT(refusal.message, HasSubstr("eeeeeeeeeeeeeeee"));
  EXPECT_THAT(refusal.message, HasSubstr("worker good has ffffffffffffffff"));
  harness.step(LedgerState{false});
  harness.pass(2 * kSecond);
  harness.from_client("c", protocol::ClientHello{.client = "x", .ledger_id = "b2"});
  harness.from_client("c", protocol::StatusRequest{.request_id = 1});
  const auto status = harness.got<protocol::StatusReply>("c").at(0);
  EXPECT_EQ(status.ledger_id, harness.ledger_id);
  EXPECT_EQ(status.ledger_away_s, 2);
  EXPECT_THAT(status.ledger_warning, HasSubstr("client x comes from another ledger"));
  ASSERT_EQ(status.refused_workers.size(), 1U);
  EXPECT_EQ(status.refused_workers[0].name, "bad");
  EXPECT_EQ(status.refused_workers[0].device_kind, "sm90");
  EXPECT_EQ(status.refused_workers[0].times, 3U);
  EXPECT_EQ(status.refused_workers[0].age_s, 2);
  EXPECT_EQ(status.refused_workers[0].reason, refusal.message);
}

TEST(WorkerRefusals, AreBoundedAndTheLatestFirst) {
  WorkerRefusals refusals;
  for (int i = 0; i < 100; ++i) {
    refusals.record({.name = std::to_string(i).append(100'000, 'x')}, "why", i);
    refusals.record({.name = "again"}, "why", i);
  }
  const auto list = refusals.list(100);
  ASSERT_EQ(list.size(), 32U);
  EXPECT_EQ(list[0].name, "again");
  EXPECT_EQ(list[0].times, 100U);
  EXPECT_EQ(list[1].name.substr(0, 3), "99x");
  EXPECT_LE(list[1].name.size(), protocol::kNameBytesMax);
}

}  // namespace
}  // namespace tessera::coordinator
