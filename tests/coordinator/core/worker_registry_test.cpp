#include "coordinator/core/scheduling/worker_registry.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace tessera::coordinator {
namespace {

constexpr Micros kSecond = 1'000'000;

const ServedModel kModel{.name = "m",
                         .tokenizer_hash = "t",
                         .hidden_size = 64,
                         .max_seqlen = 100,
                         .vocab_size = 1000,
                         .query_prefix = {}};

protocol::WorkerHello hello() {
  return {.name = "w",
          .model = "m",
          .fingerprint = std::string(64, 'f'),
          .tokenizer_hash = "t",
          .hidden_size = 64,
          .vocab_size = 1000,
          .max_batch_tokens = 1000,
          .max_batch_sequences = 100,
          .max_seqlen = 100};
}

TEST(WorkerRegistry, ChecksAHello) {
  EXPECT_TRUE(WorkerRegistry::check(hello(), kModel).ok());
  using Change = void (*)(protocol::WorkerHello&);
  const Change changes[] = {
      [](auto& h) { h.tokenizer_hash = "other"; },
      [](auto& h) { h.hidden_size = 63; },
      [](auto& h) { h.vocab_size = 1001; },
      [](auto& h) { h.fingerprint = "short"; },
      [](auto& h) { h.fingerprint = ""; },
      [](auto& h) { h.former_fingerprint = "short"; },
      [](auto& h) { h.max_batch_tokens = 0; },
      [](auto& h) { h.max_batch_tokens = 0xFFFFFFFF; },
      [](auto& h) { h.max_batch_sequences = 0; },
      [](auto& h) { h.max_seqlen = 1; },
      [](auto& h) { h.slots = 0; },
      [](auto& h) { h.slots = 1000; },
      [](auto& h) { h.cost_s = -1; },
      [](auto& h) { h.cost_s = 1e300; },
      [](auto& h) { h.cost_s_per_token2 = 4000; },
      [](auto& h) { h.cost_s_per_token = std::numeric_limits<double>::infinity(); },
      [](auto& h) { h.cost_s_per_token2 = std::numeric_limits<double>::quiet_NaN(); },
  };
  for (const Change change : changes) {
    protocol::WorkerHello changed = hello();
    change(changed);
    EXPECT_FALSE(WorkerRegistry::check(changed, kModel).ok());
  }
}

TEST(WorkerRegistry, ABatchFitsItsMessagesWhateverAWorkerSays) {
  WorkerRegistry registry;
  protocol::WorkerHello greedy = hello();
  greedy.max_batch_sequences = 0xFFFFFFFF;
  const Worker& worker = registry.add("a", greedy, 0, 0);
  const std::uint64_t sequences = registry.capacity(worker).max_batch_sequences;
  EXPECT_LE(sequences * 4, protocol::kHeaderBytesMax / 2) << "the lengths, in a header";
  EXPECT_LE(sequences * greedy.hidden_size * 2, protocol::kPayloadBytesMax) << "the vectors";
}

TEST(WorkerRegistry, AnyMessageIsASignOfLifeAndThreeMissedBeatsAreDeath) {
  WorkerRegistry registry({.heartbeat_us = kSecond});
  registry.add("a", hello(), 0, 0);
  registry.add("b", hello(), 0, 0);
  EXPECT_TRUE(registry.tick(kSecond / 2).to_ping.empty());
  EXPECT_EQ(registry.tick(kSecond).to_ping, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(registry.tick(kSecond + 10).to_ping.empty()) << "one ping a heartbeat";
  registry.heard("b", kSecond * 2);
  for (Micros now = kSecond + 20; now < kSecond * 3; now += kSecond / 2) {
    EXPECT_TRUE(registry.tick(now).dead.empty());
  }
  const auto due = registry.tick(kSecond * 3);
  EXPECT_EQ(due.dead, std::vector<std::string>{"a"});
  EXPECT_EQ(due.to_ping, std::vector<std::string>{"b"});
}

TEST(WorkerRegistry, APauseOfThisProcessIsNobodysSilence) {
  WorkerRegistry registry({.heartbeat_us = kSecond});
  registry.add("a", hello(), 0, 0);
  registry.tick(kSecond / 2);
  EXPECT_TRUE(registry.tick(100 * kSecond).dead.empty());
  Micros now = 100 * kSecond;
  while (registry.tick(now += kSecond / 2).dead.empty() && now < 200 * kSecond) {
  }
  EXPECT_EQ(now, 102 * kSecond + kSecond / 2) << "silence before and after the pause adds up";
}

TEST(WorkerRegistry, TheDrainRateKeepsWhatABusyWorkerReached) {
  WorkerRegistry registry;
  Worker& worker = registry.add("a", hello(), 0, 0);
  worker.tokens_done = 5000;
  registry.tick(kSecond);
  for (int second = 2; second < 100; ++second) {
    registry.heard("a", second * kSecond);
    registry.tick(second * kSecond);
  }
  EXPECT_EQ(worker.drain_rate, 5000);
  EXPECT_LT(worker.tokens_per_second, 1);
}

TEST(WorkerRegistry, GivesWorkToTheLeastLoadedThatTakesAny) {
  WorkerRegistry registry;
  Worker& a = registry.add("a", hello(), 0, 0);
  Worker& b = registry.add("b", hello(), 0, 0);
  registry.add("other model", hello(), 1, 0);
  a.batches = {1};
  EXPECT_EQ(registry.next_free(0, {}), &b);
  EXPECT_EQ(registry.capacity(b).free_slots_of_model, 3U);
  EXPECT_EQ(registry.next_free(0, {&b}), &a);
  b.leaving = true;
  EXPECT_EQ(registry.next_free(0, {}), &a);
  a.batches = {1, 2};
  EXPECT_EQ(registry.next_free(0, {}), nullptr);
  a.batches = {1};
  a.exclusive = true;
  EXPECT_EQ(registry.next_free(0, {}), nullptr);
}

TEST(WorkerRegistry, MeasuresTheRate) {
  WorkerRegistry registry;
  Worker& worker = registry.add("a", hello(), 0, 0);
  for (int second = 1; second <= 30; ++second) {
    registry.heard("a", second * kSecond);
    worker.tokens_done += 500;
    registry.tick(second * kSecond);
  }
  EXPECT_NEAR(worker.tokens_per_second, 500, 5);
}

TEST(WorkerRegistry, ABatchsVectorsFitOneMessage) {
  WorkerRegistry registry;
  protocol::WorkerHello wide = hello();
  wide.hidden_size = 4096;
  wide.max_batch_sequences = 1'000'000;
  const Worker& worker = registry.add("a", wide, 0, 0);
  EXPECT_LE(worker.hello.max_batch_sequences * 4096ULL * 2, protocol::kPayloadBytesMax);
}

}  // namespace
}  // namespace tessera::coordinator
