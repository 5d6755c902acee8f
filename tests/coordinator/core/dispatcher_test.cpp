#include "coordinator/core/scheduling/dispatcher.hpp"

#include <gtest/gtest.h>

#include "common/log.hpp"

namespace tessera::coordinator {
namespace {

constexpr Micros kSecond = 1'000'000;
constexpr std::uint32_t kWidth = 4;

const std::vector<ServedModel> kModels = {{.name = "m",
                                           .tokenizer_hash = "t",
                                           .hidden_size = kWidth,
                                           .max_seqlen = 100,
                                           .vocab_size = 1000,
                                           .query_prefix = {}}};

class DispatcherTest : public testing::Test {
 protected:
  void SetUp() override { log::set_level(log::Level::kOff); }

  void hello(const std::string& peer, std::uint64_t process = 0, std::uint32_t express_tokens = 0) {
    dispatcher.on_message(peer,
                          protocol::WorkerHello{.name = peer,
                                                .model = "m",
                                                .fingerprint = std::string(64, 'f'),
                                                .tokenizer_hash = "t",
                                                .hidden_size = kWidth,
                                                .vocab_size = 1000,
                                                .max_batch_tokens = 100,
                                                .max_batch_sequences = 10,
                                                .max_seqlen = 100,
                                                .process = process,
                                                .express_tokens = express_tokens},
                          0, actions);
    actions.clear();
  }
  Flight* flight(std::uint32_t length) {
    flights.push_back(std::make_unique<Flight>());
    flights.back()->ids.assign(length, 7);
    dispatcher.enqueue(flights.back().get(), 0);
    return flights.back().get();
  }
  Flight* query(std::uint32_t length) {
    flights.push_back(std::make_unique<Flight>());
    flights.back()->ids.assign(length, 7);
    flights.back()->lane = protocol::Lane::kInteractive;
    dispatcher.enqueue(flights.back().get(), 0);
    return flights.back().get();
  }
  // The batches that a dispatch sends, with their worker.
  std::vector<std::pair<std::string, protocol::Batch>> dispatch() {
    actions.clear();
    dispatcher.dispatch(0, actions);
    std::vector<std::pair<std::string, protocol::Batch>> batches;
    for (const Action& action : actions) {
      const auto& send = std::get<SendWorker>(action);
      batches.emplace_back(send.peer, std::get<protocol::Batch>(send.message));
    }
    return batches;
  }
  static protocol::BatchResult answer(const protocol::Batch& batch) {
    protocol::BatchResult result{
        .epoch = batch.epoch, .batch_id = batch.batch_id, .attempt = batch.attempt};
    result.codes.assign(batch.lengths.size(), 0);
    result.payload.resize(batch.lengths.size() * kWidth * 2, std::byte{1});
    return result;
  }

  Actions actions;
  std::vector<std::unique_ptr<Flight>> flights;
  Dispatcher dispatcher{kModels, 5, {}};
};

TEST_F(DispatcherTest, ABatchGoesOutAndItsVectorsComeBackInOrder) {
  hello("a");
  Flight* shorter = flight(10);
  Flight* longer = flight(60);
  const auto batches = dispatch();
  ASSERT_EQ(batches.size(), 1U);
  EXPECT_EQ(batches[0].second.epoch, 5U);
  EXPECT_EQ(batches[0].second.lengths, (std::vector<std::uint32_t>{60, 10}));
  EXPECT_EQ(batches[0].second.payload.size(), 70U * 4);
  auto result = answer(batches[0].second);
  result.payload[kWidth * 2] = std::byte{2};
  dispatcher.on_message("a", result, 0, actions);
  const auto ended = dispatcher.take_ended();
  ASSERT_EQ(ended.size(), 2U);
  EXPECT_EQ(ended[0].flight, longer);
  EXPECT_EQ(ended[1].flight, shorter);
  EXPECT_EQ(ended[1].embedding->values[0], 0x0102);
  EXPECT_EQ(ended[1].embedding->tokens, 10U);
}

TEST_F(DispatcherTest, TwoBatchesAreInFlightAndNoMore) {
  hello("a");
  for (int i = 0; i < 5; ++i) {
    flight(100);
  }
  EXPECT_EQ(dispatch().size(), 2U);
  EXPECT_TRUE(dispatch().empty());
  hello("b");
  EXPECT_EQ(dispatch().size(), 2U) << "a second worker is used at once";
}

TEST_F(DispatcherTest, AWorkerThatCallsItselfSlowIsGivenItsTime) {
  protocol::WorkerHello slow{.name = "slow",
                             .model = "m",
                             .fingerprint = std::string(64, 'f'),
                             .tokenizer_hash = "t",
                             .hidden_size = kWidth,
                             .vocab_size = 1000,
                             .max_batch_tokens = 4'000'000,
                             .max_batch_sequences = 10,
                             .max_seqlen = 4'000'000,
                             .cost_s_per_token2 = 3600};
  dispatcher.on_message("slow", slow, 0, actions);
  flight(4'000'000);
  ASSERT_EQ(dispatch().size(), 1U);
  dispatcher.tick(1, actions);
  EXPECT_EQ(dispatcher.batches_in_flight(), 1U) << "a time beyond all numbers is not the past";
}

// Serves jobs of many short texts by a worker that states `stated_s` a token and takes `true_s`,
// and gives the seconds that its batches take in the end.
double seconds_a_batch(double stated_s, double true_s) {
  Dispatcher dispatcher{kModels, 5, {}};
  Actions actions;
  dispatcher.on_message("a",
                        protocol::WorkerHello{.name = "a",
                                              .model = "m",
                                              .fingerprint = std::string(64, 'f'),
                                              .tokenizer_hash = "t",
                                              .hidden_size = kWidth,
                                              .vocab_size = 1000,
                                              .max_batch_tokens = 65'536,
                                              .max_batch_sequences = 4096,
                                              .max_seqlen = 100,
                                              .cost_s = 50 * stated_s,
                                              .cost_s_per_token = stated_s},
                        0, actions);
  std::vector<std::unique_ptr<Flight>> flights;
  double taken_s = 0;
  for (int turn = 0; turn < 200; ++turn) {
    while (dispatcher.waiting_tokens() < 200'000) {
      flights.push_back(std::make_unique<Flight>());
      flights.back()->ids.assign(20, 7);
      dispatcher.enqueue(flights.back().get(), 0);
    }
    actions.clear();
    dispatcher.dispatch(0, actions);
    for (Action& action : actions) {
      const auto batch = std::get<protocol::Batch>(std::get<SendWorker>(action).message);
      const auto tokens = static_cast<double>(batch.payload.size()) / 4;
      taken_s = true_s * (50 + tokens);
      protocol::BatchResult result{
          .epoch = batch.epoch, .batch_id = batch.batch_id, .attempt = batch.attempt};
      result.codes.assign(batch.lengths.size(), 0);
      result.payload.resize(batch.lengths.size() * kWidth * 2, std::byte{1});
      result.compute_us = static_cast<std::uint64_t>(taken_s * 1e6);
      Actions answers;
      dispatcher.on_message("a", std::move(result), 0, answers);
    }
    (void)dispatcher.take_ended();
  }
  return taken_s;
}

TEST_F(DispatcherTest, WhatBatchesTakeCorrectsWhatTheWorkerStated) {
  constexpr double kTrueS = 2e-5;  // A bulk batch of 0.2 s, where nobody asks, has 9,950 tokens.
  const double well_known_s = seconds_a_batch(kTrueS, kTrueS);
  EXPECT_NEAR(well_known_s, 0.2, 0.01);
  EXPECT_NEAR(seconds_a_batch(20 * kTrueS, kTrueS), well_known_s, 0.01) << "measured when loaded";
  EXPECT_NEAR(seconds_a_batch(kTrueS / 5, kTrueS), well_known_s, 0.01) << "now loaded";
  EXPECT_GT(seconds_a_batch(1000 * kTrueS, kTrueS), 0) << "beyond all reason: still served";
}

TEST(CostCorrection, OneOddBatchChangesLittle) {
  CostCorrection correction;
  EXPECT_EQ(correction.factor(), 1);
  correction.on_batch(0, 5);
  EXPECT_EQ(correction.factor(), 1) << "nothing was stated";
  for (int i = 0; i < 100; ++i) {
    correction.on_batch(0.1, 0.1);
  }
  correction.on_batch(0.1, 1e9);
  EXPECT_LT(correction.factor(), 3);
  for (int i = 0; i < 100; ++i) {
    correction.on_batch(0.1, i % 2 == 0 ? 0.2 : 0.0);  // Two are answered together.
  }
  EXPECT_NEAR(correction.factor(), 1, 0.1);
}

TEST_F(DispatcherTest, ResultsThatDoNotBelongAreDropped) {
  hello("a");
  hello("b");
  flight(10);
  const auto batches = dispatch();
  const auto good = answer(batches[0].second);
  const std::string other = batches[0].first == "a" ? "b" : "a";
  auto old_epoch = good;
  old_epoch.epoch = 4;
  auto old_attempt = good;
  old_attempt.attempt = 7;
  auto unknown = good;
  unknown.batch_id = 99;
  dispatcher.on_message(batches[0].first, old_epoch, 0, actions);
  dispatcher.on_message(batches[0].first, old_attempt, 0, actions);
  dispatcher.on_message(batches[0].first, unknown, 0, actions);
  dispatcher.on_message(other, good, 0, actions);
  dispatcher.on_message("stranger", good, 0, actions);
  EXPECT_TRUE(dispatcher.take_ended().empty());
  dispatcher.on_message(batches[0].first, good, 0, actions);
  EXPECT_EQ(dispatcher.take_ended().size(), 1U);
  dispatcher.on_message(batches[0].first, good, 0, actions);
  EXPECT_TRUE(dispatcher.take_ended().empty()) << "the second copy";
}

TEST_F(DispatcherTest, NotFiniteIsAnErrorOfThatItemOnly) {
  hello("a");
  flight(30);
  flight(20);
  flight(10);
  const auto batches = dispatch();
  auto result = answer(batches[0].second);
  result.codes[0] = static_cast<std::uint8_t>(ErrorCode::kNotFinite);
  result.payload[kWidth * 2] = std::byte{0x00};
  result.payload[kWidth * 2 + 1] = std::byte{0x7C};  // Infinity in the second row.
  dispatcher.on_message("a", result, 0, actions);
  const auto ended = dispatcher.take_ended();
  ASSERT_EQ(ended.size(), 3U);
  EXPECT_EQ(ended[0].error.code, ErrorCode::kNotFinite);
  EXPECT_EQ(ended[1].error.code, ErrorCode::kNotFinite);
  EXPECT_NE(ended[2].embedding, nullptr);
}

TEST_F(DispatcherTest, AResultOfAnotherSizeCostsTheWorkerItsPlace) {
  hello("a");
  flight(10);
  const auto batches = dispatch();
  auto result = answer(batches[0].second);
  result.payload.pop_back();
  dispatcher.on_message("a", result, 0, actions);
  EXPECT_TRUE(dispatcher.workers().all().empty());
  EXPECT_TRUE(dispatcher.take_ended().empty());
  hello("b");
  EXPECT_EQ(dispatch().size(), 1U) << "its items go to another";
}

TEST_F(DispatcherTest, DeadWorkersItemsGoOnAndTheThirdDeathIsPoison) {
  Flight* item = flight(10);
  for (std::uint32_t death = 1; death <= 3; ++death) {
    const std::string peer = std::to_string(death);
    hello(peer);
    const auto batches = dispatch();
    ASSERT_EQ(batches.size(), 1U);
    EXPECT_EQ(batches[0].second.attempt, death);
    dispatcher.on_gone(peer, 0);
    EXPECT_EQ(item->deaths, death);
  }
  const auto ended = dispatcher.take_ended();
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(ended[0].error.code, ErrorCode::kPoison);
}

// One process on one connection after another: it lives, so the item is not to blame.
TEST_F(DispatcherTest, ConnectionsThatBreakAreNoDeathsOfAProcessThatComesBack) {
  Flight* item = flight(10);
  for (std::uint32_t loss = 1; loss <= 11; ++loss) {
    const std::string peer = std::to_string(loss);
    hello(peer, 77);
    const auto batches = dispatch();
    ASSERT_EQ(batches.size(), 1U) << loss;
    EXPECT_EQ(batches[0].second.attempt, loss);
    loss % 2 == 0 ? dispatcher.on_gone(peer, 0) : dispatcher.tick(loss * 10 * kSecond, actions);
    EXPECT_EQ(item->deaths, 1U) << "until it registers again";
    EXPECT_TRUE(dispatcher.workers().all().empty());
  }
  EXPECT_TRUE(dispatcher.take_ended().empty());
  hello("12", 77);
  const auto batches = dispatch();
  ASSERT_EQ(batches.size(), 1U);
  dispatcher.on_message("12", answer(batches[0].second), 0, actions);
  const auto ended = dispatcher.take_ended();
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_NE(ended[0].embedding, nullptr);
}

TEST_F(DispatcherTest, AFreshConnectionReplacesTheProcessesOldOne) {
  Flight* item = flight(10);
  hello("old", 77);
  ASSERT_EQ(dispatch().size(), 1U);
  hello("other", 78);
  hello("new", 77);
  EXPECT_FALSE(dispatcher.workers().all().contains("old"));
  EXPECT_TRUE(dispatcher.workers().all().contains("other"));
  EXPECT_EQ(item->deaths, 0U);
  dispatcher.make_interactive(item, {.tenant = "t", .job = ""});
  const auto batches = dispatch();
  ASSERT_EQ(batches.size(), 1U) << "what it held goes on at once";
  EXPECT_EQ(batches[0].second.attempt, 2U);
  dispatcher.on_message("old", answer(batches[0].second), 0, actions);
  EXPECT_TRUE(dispatcher.take_ended().empty());
  dispatcher.on_message(batches[0].first, answer(batches[0].second), 0, actions);
  EXPECT_EQ(dispatcher.take_ended().size(), 1U);
}

TEST_F(DispatcherTest, NoItemBreaksConnectionsForEver) {
  flight(10);
  for (int loss = 1; loss <= 12; ++loss) {
    ASSERT_TRUE(dispatcher.take_ended().empty()) << loss;
    hello(std::to_string(loss), 77);
    ASSERT_EQ(dispatch().size(), 1U);
    dispatcher.on_gone(std::to_string(loss), 0);
  }
  const auto ended = dispatcher.take_ended();
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(ended[0].error.code, ErrorCode::kPoison);
}

TEST_F(DispatcherTest, AProcessThatStartsAnewHasDied) {
  flight(10);
  for (const std::uint64_t process : {1, 2, 3}) {
    hello("a", process);
    ASSERT_EQ(dispatch().size(), 1U);
    dispatcher.on_gone("a", 0);
  }
  EXPECT_EQ(dispatcher.take_ended().size(), 1U);
}

// A worker that hangs or sends nonsense is no better for being alive.
TEST_F(DispatcherTest, HungAndMalformedWorkersHaveDiedAlthoughTheyComeBack) {
  Flight* item = flight(10);
  hello("a", 77);
  dispatch();
  dispatcher.on_bad_message("a", {ErrorCode::kInvalidArgument, "nonsense"}, 0, actions);
  hello("b", 77);
  dispatch();
  for (int second = 1; second < 300; ++second) {
    dispatcher.on_message("b", protocol::Ping{}, second * kSecond, actions);
    dispatcher.tick(second * kSecond, actions);
  }
  EXPECT_EQ(item->deaths, 2U);
  hello("c", 77);
  dispatch();
  dispatcher.on_gone("c", 0);
  EXPECT_EQ(dispatcher.take_ended().size(), 1U);
}

TEST_F(DispatcherTest, AnItemRunsAloneAfterTwoDeaths) {
  flight(10);
  for (const char* peer : {"x", "y"}) {
    hello(peer);
    dispatch();
    dispatcher.on_gone(peer, 0);
  }
  hello("a");
  flight(20);
  const auto batches = dispatch();
  ASSERT_EQ(batches.size(), 1U) << "nothing runs beside it";
  EXPECT_EQ(batches[0].second.lengths, std::vector<std::uint32_t>{10});
  dispatcher.on_message("a", answer(batches[0].second), 0, actions);
  EXPECT_EQ(dispatch().size(), 1U);
}

TEST_F(DispatcherTest, SilenceAndEndlessBatchesAreDeath) {
  hello("silent");
  flight(10);
  dispatch();
  dispatcher.tick(3 * kSecond, actions);
  EXPECT_TRUE(dispatcher.workers().all().empty());
  hello("hangs");
  dispatch();
  for (int second = 4; second < 300; ++second) {
    dispatcher.on_message("hangs", protocol::Ping{}, second * kSecond, actions);
    dispatcher.tick(second * kSecond, actions);
  }
  EXPECT_TRUE(dispatcher.workers().all().empty()) << "alive, but its batch never ends";
}

TEST_F(DispatcherTest, AGoodbyeLetsFinishWhatIsInFlight) {
  hello("a");
  flight(10);
  const auto batches = dispatch();
  dispatcher.on_message("a", protocol::WorkerGoodbye{"stop"}, 0, actions);
  flight(10);
  EXPECT_TRUE(dispatch().empty());
  dispatcher.on_message("a", answer(batches[0].second), 0, actions);
  EXPECT_EQ(dispatcher.take_ended().size(), 1U);
  EXPECT_TRUE(dispatcher.workers().all().empty());
}

TEST_F(DispatcherTest, AQueryOvertakesWhatABusyWorkerHas) {
  hello("a", 0, 20);
  flight(90);
  flight(90);
  ASSERT_EQ(dispatch().size(), 2U);
  flight(90);
  EXPECT_TRUE(dispatch().empty());

  query(8);
  const auto express = dispatch();
  ASSERT_EQ(express.size(), 1U);
  EXPECT_TRUE(express[0].second.express);
  EXPECT_EQ(express[0].second.lengths, (std::vector<std::uint32_t>{8}));

  query(7);  // One at a time.
  EXPECT_TRUE(dispatch().empty());
  dispatcher.on_message("a", answer(express[0].second), 0, actions);
  const auto next = dispatch();
  ASSERT_EQ(next.size(), 1U);
  EXPECT_TRUE(next[0].second.express);
  EXPECT_EQ(dispatcher.metrics().express_batches, 1U);
}

TEST_F(DispatcherTest, AWorkerWithoutAnExpressSlotIsSentNoExpressBatch) {
  hello("a");
  flight(90);
  flight(90);
  ASSERT_EQ(dispatch().size(), 2U);
  query(8);
  EXPECT_TRUE(dispatch().empty());
}

TEST_F(DispatcherTest, AnExpressBatchOfALostWorkerGoesToAnother) {
  hello("a", 0, 20);
  flight(90);
  ASSERT_EQ(dispatch().size(), 1U);
  query(8);
  ASSERT_TRUE(dispatch().at(0).second.express);
  dispatcher.on_gone("a", 0);
  hello("b");
  const auto again = dispatch();
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].second.lengths, (std::vector<std::uint32_t>{8, 90}));
  EXPECT_FALSE(again[0].second.express);
}

}  // namespace
}  // namespace tessera::coordinator
