#include "worker/link/link.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstring>
#include <numeric>
#include <optional>

#include "common/float16.hpp"

namespace tessera::worker {
namespace {

constexpr std::int64_t kWidth = 4;
constexpr int kStaleWelcomesMax = 10;  // As link.cpp has it.
constexpr std::int32_t kNanId = 77;    // A sequence that starts with it gives NaN.
constexpr std::int32_t kSpoilId = 78;  // So does one with it, and the one in front of it.
constexpr std::int32_t kFaultId = 88;  // A batch that holds it makes the device fail.
constexpr std::int32_t kSlowId = 99;   // A batch that holds it computes until slow_may_end is set.

std::atomic<bool> slow_may_end{false};

// An engine whose vectors are known: row i is the sum of sequence i's ids in every column.
class FakeEngine : public Engine {
 public:
  FakeEngine() {
    info_.model_name = "fake";
    info_.fingerprint = std::string(64, 'f');
    info_.hidden_size = kWidth;
    info_.max_batch_tokens = 100;
  }
  const EngineInfo& info() const override { return info_; }
  int slots() const override { return 2; }
  Result<void> check(const kernels::PackedBatchView& batch) const override {
    return batch.total_tokens() > info_.max_batch_tokens
               ? Result<void>(Error{ErrorCode::kInvalidArgument, "too many tokens"})
               : Result<void>();
  }
  void enqueue(int slot, const kernels::PackedBatchView& batch) override {
    auto& [vectors, finite] = outputs_[slot];
    vectors.clear();
    finite.clear();
    for (std::int64_t i = 0; i < batch.num_sequences(); ++i) {
      const auto begin = batch.input_ids.begin() + batch.cu_seqlens[static_cast<std::size_t>(i)];
      const auto end = batch.input_ids.begin() + batch.cu_seqlens[static_cast<std::size_t>(i) + 1];
      if (std::find(begin, end, kFaultId) != end) {
        throw FatalError("the fake device failed");
      }
      while (std::find(begin, end, kSlowId) != end && !slow_may_end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      vectors.insert(vectors.end(), kWidth, static_cast<float>(std::accumulate(begin, end, 0)));
      finite.push_back(*begin == kNanId || *begin == kSpoilId ? 0 : 1);
      if (*begin == kSpoilId && i > 0) finite[static_cast<std::size_t>(i) - 1] = 0;
    }
  }
  bool wait_unless(int, const std::function<bool()>&) override { return true; }
  std::span<const float> vectors(int slot) const override { return outputs_[slot].first; }
  std::span<const std::uint8_t> finite(int slot) const override { return outputs_[slot].second; }

 private:
  EngineInfo info_;
  std::pair<std::vector<float>, std::vector<std::uint8_t>> outputs_[2];
};

protocol::Batch batch_of(std::uint64_t id, const std::vector<std::vector<std::int32_t>>& sequences,
                         std::uint64_t epoch = 5) {
  protocol::Batch batch{.epoch = epoch, .batch_id = id, .attempt = 1};
  for (const auto& ids : sequences) {
    batch.lengths.push_back(static_cast<std::uint32_t>(ids.size()));
    const auto* bytes = reinterpret_cast<const std::byte*>(ids.data());
    batch.payload.insert(batch.payload.end(), bytes, bytes + ids.size() * 4);
  }
  return batch;
}

// A worker process in a thread of this one, and the coordinator's end of its connection.
class LinkTest : public testing::Test {
 protected:
  LinkTest() {
    server_.emplace(context_, "tcp://127.0.0.1:*");
    options_.coordinator = server_->endpoint();
    options_.name = "w1";
    options_.drain_s = 5;
    thread_ = std::jthread([this] {
      BatchRunner runner([] { return std::make_unique<FakeEngine>(); }, results_ready_);
      std::optional<EngineInfo> info;
      while (!(info = runner.wait_ready(std::chrono::seconds(1)))) {
      }
      try {
        drained_ = Link(options_, *info, runner, results_ready_).run(stop_);
      } catch (const FatalError& error) {
        fault_ = error.what();
      }
    });
  }
  ~LinkTest() override { stop(); }

  void stop() {
    if (thread_.joinable()) {
      kill(getpid(), SIGTERM);  // Blocked in every thread, so the signalfd gets it.
      thread_.join();
    }
  }

  // The next message that is not a heartbeat.
  protocol::Message next() {
    net::Incoming incoming;
    net::PollSet poll{.sockets = {&*server_}, .descriptors = {}};
    for (int i = 0; i < 1000; ++i) {
      if (!server_->receive(incoming)) {
        poll.wait(10);
        continue;
      }
      auto message = protocol::decode(incoming.header, std::move(incoming.payload));
      CHECK(message.ok());
      peer_ = incoming.peer;
      if (!std::holds_alternative<protocol::Ping>(*message)) {
        return std::move(message).value();
      }
    }
    ADD_FAILURE() << "no message within 10 s";
    return protocol::Ping{};
  }

  void send(protocol::Message message) {
    ASSERT_EQ(server_->send(peer_, protocol::encode(std::move(message))), net::SendStatus::kSent);
  }

  void register_worker() {
    const auto hello = std::get<protocol::WorkerHello>(next());
    EXPECT_EQ(hello.name, "w1");
    EXPECT_EQ(hello.model, "fake");
    EXPECT_EQ(hello.slots, 2U);
    EXPECT_NE(hello.process, 0U);
    process_ = hello.process;
    send(protocol::WorkerWelcome{.epoch = 5, .heartbeat_ms = 100});
  }

  // Ends the server's socket; there is a new one on the same port.
  void break_connection() {
    const std::string endpoint = server_->endpoint();
    server_.reset();
    for (int i = 0; i < 500 && !server_; ++i) {
      try {
        server_.emplace(context_, endpoint);
      } catch (const FatalError&) {  // The old one's port is not free yet.
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
    ASSERT_TRUE(server_);
  }

  // No heartbeat is due within the test, so silence tells nothing.
  void welcome(std::uint64_t term, const std::string& ledger) {
    protocol::WorkerWelcome welcome;
    welcome.epoch = term;
    welcome.heartbeat_ms = 60'000;
    welcome.ledger_id = ledger;
    send(welcome);
  }

  // A welcome that the worker follows: it computes in that term.
  void serve(std::uint64_t term, const std::string& ledger) {
    welcome(term, ledger);
    send(batch_of(term, {{1}}, term));
    EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, term);
  }

  protocol::WorkerHello hello_after_break() {
    break_connection();
    return std::get<protocol::WorkerHello>(next());
  }

  StopSignal stop_;
  net::Context context_;
  std::optional<net::RouterSocket> server_;
  net::WakeUp results_ready_;
  WorkerOptions options_;
  std::string peer_;
  std::uint64_t process_ = 0;
  std::string fault_;
  bool drained_ = false;
  std::jthread thread_;
};

std::vector<float> row(const protocol::BatchResult& result, std::size_t index) {
  std::vector<std::uint16_t> halves(kWidth);
  std::memcpy(halves.data(), result.payload.data() + index * kWidth * 2, kWidth * 2);
  std::vector<float> values(kWidth);
  from_float16(halves, values);
  return values;
}

TEST_F(LinkTest, AnIdleWorkerThatReportsPingsAllTheSame) {
  std::get<protocol::WorkerHello>(next());
  send(protocol::WorkerWelcome{.epoch = 5, .heartbeat_ms = 300, .metrics_ms = 100});
  net::Incoming incoming;
  net::PollSet poll{.sockets = {&*server_}, .descriptors = {}};
  for (int i = 0; i < 1000; ++i) {
    if (!server_->receive(incoming)) {
      poll.wait(10);
      continue;
    }
    const auto message = protocol::decode(incoming.header, std::move(incoming.payload));
    CHECK(message.ok());
    EXPECT_FALSE(std::holds_alternative<protocol::WorkerHello>(*message)) << "it lost patience";
    if (std::holds_alternative<protocol::Ping>(*message)) {
      return;
    }
  }
  FAIL() << "no ping came";
}

TEST_F(LinkTest, ReportsWhatItCountedAsOftenAsItIsTold) {
  std::get<protocol::WorkerHello>(next());
  send(protocol::WorkerWelcome{.epoch = 5, .heartbeat_ms = 1000, .metrics_ms = 100});
  send(batch_of(1, {{1, 2, 3}, {4}}));
  bool answered = false;
  for (int i = 0; i < 100; ++i) {
    const protocol::Message message = next();
    answered = answered || std::holds_alternative<protocol::BatchResult>(message);
    const auto* metrics = std::get_if<protocol::WorkerMetrics>(&message);
    if (metrics != nullptr && metrics->batches > 0) {
      EXPECT_TRUE(answered);
      EXPECT_EQ(metrics->batches, 1U);
      EXPECT_EQ(metrics->sequences, 2U);
      EXPECT_EQ(metrics->tokens, 4U);
      return;
    }
  }
  FAIL() << "no report came";
}

TEST_F(LinkTest, AnswersBatchesInOrderWithRoundedVectors) {
  register_worker();
  send(batch_of(1, {{1, 2, 3}, {10}}));
  send(batch_of(2, {{4}}));
  const auto first = std::get<protocol::BatchResult>(next());
  EXPECT_EQ(first.batch_id, 1U);
  EXPECT_EQ(first.epoch, 5U);
  EXPECT_EQ(first.attempt, 1U);
  EXPECT_EQ(first.codes, (std::vector<std::uint8_t>{0, 0}));
  EXPECT_EQ(row(first, 0), std::vector<float>(kWidth, 6.0F));
  EXPECT_EQ(row(first, 1), std::vector<float>(kWidth, 10.0F));
  EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, 2U);
}

TEST_F(LinkTest, ARowThatIsNotFiniteIsAnErrorAndItsNeighboursAreNot) {
  register_worker();
  send(batch_of(1, {{1}, {kNanId, 1}, {2}}));
  const auto result = std::get<protocol::BatchResult>(next());
  EXPECT_EQ(result.codes[0], 0);
  EXPECT_EQ(static_cast<ErrorCode>(result.codes[1]), ErrorCode::kNotFinite);
  EXPECT_EQ(row(result, 1), std::vector<float>(kWidth, 0.0F));
  EXPECT_EQ(row(result, 2), std::vector<float>(kWidth, 2.0F));
}

TEST_F(LinkTest, ANeighbourThatIsSpoiltIsComputedAlone) {
  register_worker();
  send(batch_of(1, {{4, 4}, {kSpoilId, 1}, {2}}));
  const auto result = std::get<protocol::BatchResult>(next());
  EXPECT_EQ(result.codes[0], 0);
  EXPECT_EQ(row(result, 0), std::vector<float>(kWidth, 8.0F));
  EXPECT_EQ(static_cast<ErrorCode>(result.codes[1]), ErrorCode::kNotFinite);
  EXPECT_EQ(row(result, 1), std::vector<float>(kWidth, 0.0F));
  EXPECT_EQ(row(result, 2), std::vector<float>(kWidth, 2.0F));
}

TEST_F(LinkTest, ABatchThatCannotRunIsAnsweredNotDropped) {
  register_worker();
  send(batch_of(1, {std::vector<std::int32_t>(101, 1)}));
  auto lying = batch_of(2, {{1, 2}});
  lying.lengths = {3};
  send(lying);
  for (const std::uint64_t id : {1U, 2U}) {
    const auto result = std::get<protocol::BatchResult>(next());
    EXPECT_EQ(result.batch_id, id);
    EXPECT_EQ(static_cast<ErrorCode>(result.codes.at(0)), ErrorCode::kInternal);
  }
}

TEST_F(LinkTest, AnOlderLeaderTermIsNotServed) {
  register_worker();
  send(batch_of(1, {{1}}, 4));
  send(batch_of(2, {{1}}, 5));
  EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, 2U);
}

TEST_F(LinkTest, TheHelloSaysWhichLedgerAndTermWereSeen) {
  const auto first = std::get<protocol::WorkerHello>(next());
  EXPECT_EQ(first.ledger_id, "");
  EXPECT_EQ(first.term_seen, 0U);
  serve(5, "one");
  const auto second = hello_after_break();
  EXPECT_EQ(second.ledger_id, "one");
  EXPECT_EQ(second.term_seen, 5U);
}

TEST_F(LinkTest, AnotherLedgerIsFollowedInAnOlderTerm) {
  (void)next();
  serve(5, "one");
  (void)hello_after_break();
  serve(1, "two");
  const auto hello = hello_after_break();
  EXPECT_EQ(hello.ledger_id, "two");
  EXPECT_EQ(hello.term_seen, 1U);
}

TEST_F(LinkTest, AnOlderTermOfTheSameLedgerEndsTheWorkerAfterSomeTries) {
  (void)next();
  serve(5, "one");
  (void)hello_after_break();
  for (int i = 0; i < kStaleWelcomesMax; ++i) {
    welcome(4, "one");
  }
  thread_.join();
  EXPECT_NE(fault_.find("leads term 4 and this worker has followed term 5"), std::string::npos)
      << fault_;
}

TEST_F(LinkTest, SilenceBringsAFreshConnection) {
  register_worker();
  const std::string old_peer = peer_;
  const auto again = std::get<protocol::WorkerHello>(next());  // Nobody answers its pings.
  EXPECT_EQ(again.process, process_) << "by which the coordinator knows that it lives";
  EXPECT_NE(peer_, old_peer);
}

TEST_F(LinkTest, ABrokenConnectionBringsAFreshOneAtOnce) {
  (void)next();
  send(protocol::WorkerWelcome{.epoch = 5, .heartbeat_ms = 60'000});  // Silence tells nothing here.
  send(batch_of(1, {{1}}));
  EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, 1U);
  const std::string old_peer = peer_;
  break_connection();
  EXPECT_TRUE(std::holds_alternative<protocol::WorkerHello>(next()));
  EXPECT_NE(peer_, old_peer);
}

TEST_F(LinkTest, WhatWaitsFromABrokenConnectionIsNotComputed) {
  slow_may_end = false;
  (void)next();
  send(protocol::WorkerWelcome{.epoch = 5, .heartbeat_ms = 60'000});
  send(batch_of(1, {{kSlowId}}));
  send(batch_of(2, {{kFaultId}}));  // Would end the worker.
  break_connection();
  EXPECT_TRUE(std::holds_alternative<protocol::WorkerHello>(next()));
  slow_may_end = true;
  send(protocol::WorkerWelcome{.epoch = 5, .heartbeat_ms = 60'000});
  send(batch_of(3, {{3}}));
  EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, 3U);
}

TEST_F(LinkTest, ASignalSaysGoodbyeAndFinishesWhatIsHeld) {
  register_worker();
  send(batch_of(1, {{1}}));
  EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, 1U);
  stop();
  EXPECT_TRUE(std::holds_alternative<protocol::WorkerGoodbye>(next()));
  EXPECT_TRUE(drained_);
  EXPECT_EQ(fault_, "");
}

TEST_F(LinkTest, ADeviceFaultEndsTheWorkerWithoutAResult) {
  register_worker();
  send(batch_of(1, {{kFaultId}}));
  thread_.join();
  EXPECT_EQ(fault_, "the fake device failed");
}

TEST_F(LinkTest, ARefusalEndsTheWorkerWithItsReason) {
  (void)next();
  send(protocol::ErrorReply{.code = ErrorCode::kConflict, .message = "another fingerprint"});
  thread_.join();
  EXPECT_EQ(fault_, "the coordinator refused this worker: another fingerprint");
}

TEST_F(LinkTest, HostileFramesAreDroppedAndTheWorkerServesOn) {
  register_worker();
  ASSERT_EQ(server_->send(peer_, {protocol::Bytes(50, std::byte{0xC1}), {}}),
            net::SendStatus::kSent);
  ASSERT_EQ(server_->send(peer_, {{}, protocol::Bytes(9)}), net::SendStatus::kSent);
  send(protocol::ClientHello{});
  send(batch_of(1, {{3}}));
  EXPECT_EQ(std::get<protocol::BatchResult>(next()).batch_id, 1U);
}

}  // namespace
}  // namespace tessera::worker
