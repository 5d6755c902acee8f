#include "clients/cpp/job.hpp"

#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "clients/cpp/client.hpp"
#include "tests/support/fake_coordinator.hpp"

namespace tessera::client {
namespace {

using test::fake_vector;
using test::FakeCoordinator;
using namespace std::chrono_literals;

constexpr auto kLong = 60s;  // Ends a hang; no assertion is about time.
constexpr std::uint32_t kChunks = 40;

ClientOptions options_for(const FakeCoordinator& coordinator) {
  ClientOptions options{.coordinator = coordinator.address()};
  options.ping = 50ms;
  options.silence_max = 300ms;
  options.hello_again = 50ms;
  return options;
}

std::string text_of(std::uint32_t chunk) { return "chunk " + std::to_string(chunk); }

protocol::ItemBlock block_of(std::uint32_t chunk) {
  protocol::ItemBlock block;
  append_text(block, text_of(chunk));
  append_text(block, "the same everywhere");
  return block;
}

// Submits [first, last), then closes.
void submit_all(Job& job, std::uint32_t first, std::uint32_t last) {
  for (std::uint32_t chunk = first; chunk < last; ++chunk) {
    auto items = block_of(chunk);
    ASSERT_TRUE(job.submit(chunk, items, kLong).ok()) << chunk;
  }
  ASSERT_TRUE(job.close(last, kLong).ok());
}

// Takes results until `count` different chunks are here; each must be right and come once.
void take(Job& job, std::size_t count, std::map<std::uint32_t, int>& seen, bool acknowledge) {
  while (seen.size() < count) {
    const auto result = job.next(kLong);
    ASSERT_TRUE(result.ok()) << result.error().message;
    ASSERT_TRUE(result->has_value());
    const protocol::ChunkResult& chunk = **result;
    ASSERT_TRUE(check_results(chunk.results, 2).ok());
    const std::string text = text_of(chunk.chunk);
    EXPECT_EQ(row_as_floats(chunk.results, 0), fake_vector(std::as_bytes(std::span(text)), 32));
    EXPECT_EQ(++seen[chunk.chunk], 1) << "chunk " << chunk.chunk << " came twice";
    if (acknowledge) {
      job.acknowledge(chunk.chunk);
    }
  }
}

void run_whole_job(FakeCoordinator& coordinator, const std::function<void()>& disturb = {}) {
  Client client(options_for(coordinator));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok()) << job.error().message;
  std::jthread submitting([&] { submit_all(*job, 0, kChunks); });
  std::map<std::uint32_t, int> seen;
  take(*job, kChunks / 2, seen, true);
  if (disturb) {
    disturb();
  }
  take(*job, kChunks, seen, true);
  submitting.join();
  EXPECT_TRUE(job->wait_done(kLong));
  EXPECT_TRUE(coordinator.job_done("key"));
}

TEST(Job, RunsToItsEnd) {
  FakeCoordinator coordinator;
  run_whole_job(coordinator);
  EXPECT_EQ(coordinator.counts().chunks, kChunks);
}

TEST(Job, TakesResultsInAnyOrder) {
  FakeCoordinator coordinator;
  coordinator.reverse_results = true;
  run_whole_job(coordinator);
}

TEST(Job, WaitsWhenChunksAreRefused) {
  FakeCoordinator coordinator;
  coordinator.refuse_chunks = 20;
  run_whole_job(coordinator);
  EXPECT_EQ(coordinator.counts().chunks, kChunks + 20);
}

TEST(Job, GoesOnAfterARestart) {
  FakeCoordinator coordinator;
  run_whole_job(coordinator, [&] { coordinator.restart(); });
}

TEST(Job, GoesOnAfterLostAcknowledgementsAndResults) {
  FakeCoordinator coordinator;
  coordinator.lose_chunk_acks = 3;
  coordinator.lose_results = 3;
  std::jthread restarting([&] {
    std::this_thread::sleep_for(200ms);
    coordinator.restart();
  });
  run_whole_job(coordinator);
}

TEST(Job, WhatABrokenConnectionLostComesAgainAtOnce) {
  FakeCoordinator coordinator;
  coordinator.window_chunks = kChunks;
  coordinator.lose_results = 3;
  ClientOptions options{.coordinator = coordinator.address()};
  options.ping = options.silence_max = options.hello_again = 1h;  // None of these tells.
  Client client(options);
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok()) << job.error().message;
  submit_all(*job, 0, kChunks);
  std::map<std::uint32_t, int> seen;
  take(*job, kChunks - 3, seen, true);
  coordinator.restart();
  take(*job, kChunks, seen, true);
  EXPECT_TRUE(job->wait_done(kLong));
}

TEST(Job, SilenceAndAFreshSocketLoseNothing) {
  FakeCoordinator coordinator;
  run_whole_job(coordinator, [&] {
    coordinator.silent = true;
    std::this_thread::sleep_for(700ms);
    coordinator.silent = false;
  });
}

TEST(Job, ReportsALostLedger) {
  FakeCoordinator coordinator;
  coordinator.hold_results = true;
  Client client(options_for(coordinator));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok());
  auto items = block_of(0);
  ASSERT_TRUE(job->submit(0, items, kLong).ok());
  while (coordinator.counts().chunks < 1) {
    std::this_thread::sleep_for(1ms);
  }
  std::this_thread::sleep_for(100ms);  // The acknowledgement arrives.
  coordinator.stop();
  coordinator.forget_ledger();
  coordinator.start();
  const auto result = job->next(kLong);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
}

TEST(Job, IsTakenUpAgainByAnotherClient) {
  FakeCoordinator coordinator;
  {
    Client client(options_for(coordinator));
    auto job = client.open_job({.job_key = "key"}, kLong);
    ASSERT_TRUE(job.ok());
    for (std::uint32_t chunk = 0; chunk < 6; ++chunk) {
      auto items = block_of(chunk);
      ASSERT_TRUE(job->submit(chunk, items, kLong).ok());
    }
    std::map<std::uint32_t, int> seen;
    take(*job, 6, seen, false);
    job->acknowledge(0);
    job->acknowledge(1);
    while (coordinator.counts().acks < 2) {
      std::this_thread::sleep_for(1ms);
    }
  }
  Client client(options_for(coordinator));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->delivered_before().size(), 2U);
  EXPECT_TRUE(job->accepted_before().contains(5));
  std::jthread submitting([&] { submit_all(*job, 0, kChunks); });
  std::map<std::uint32_t, int> seen;
  take(*job, kChunks - 2, seen, true);
  EXPECT_FALSE(seen.contains(0));
  EXPECT_FALSE(seen.contains(1));
  submitting.join();
  EXPECT_TRUE(job->wait_done(kLong));
  EXPECT_EQ(coordinator.counts().items_embedded, 2 * kChunks);
}

// Some chunks are accepted, some delivered, by one client; another comes with the same key.
class JobBegunBefore : public ::testing::Test {
 protected:
  void SetUp() override {
    coordinator_.hold_results = true;
    Client client(options_for(coordinator_));
    auto job = client.open_job({.job_key = "key"}, kLong);
    ASSERT_TRUE(job.ok());
    for (std::uint32_t chunk = 0; chunk < 6; ++chunk) {
      auto items = block_of(chunk);
      ASSERT_TRUE(job->submit(chunk, items, kLong).ok());
    }
    coordinator_.hold_results = false;
    std::map<std::uint32_t, int> seen;
    take(*job, 6, seen, false);
    job->acknowledge(0);
    job->acknowledge(1);
    while (coordinator_.counts().acks < 2) {
      std::this_thread::sleep_for(1ms);
    }
  }
  FakeCoordinator coordinator_;
};

TEST_F(JobBegunBefore, TheSameItemsAreAskedForByTheirDigest) {
  Client client(options_for(coordinator_));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok());
  const auto chunks = coordinator_.counts().chunks;
  for (std::uint32_t chunk = 0; chunk < 6; ++chunk) {
    auto items = block_of(chunk);
    EXPECT_TRUE(job->submit(chunk, items, kLong).ok()) << chunk;
  }
  EXPECT_EQ(coordinator_.counts().questions, 6U);
  EXPECT_EQ(coordinator_.counts().chunks, chunks) << "their items travel once";
  std::map<std::uint32_t, int> seen;
  take(*job, 4, seen, true);
}

TEST_F(JobBegunBefore, OtherItemsAreAConflict) {
  for (const std::uint32_t chunk : {0U, 5U}) {  // One that is delivered, one that is not.
    Client client(options_for(coordinator_));
    auto job = client.open_job({.job_key = "key"}, kLong);
    ASSERT_TRUE(job.ok());
    auto other = block_of(99);
    const auto submitted = job->submit(chunk, other, kLong);
    ASSERT_FALSE(submitted.ok());
    EXPECT_EQ(submitted.error().code, ErrorCode::kConflict);
    EXPECT_NE(submitted.error().message.find("chunk " + std::to_string(chunk)), std::string::npos);
    EXPECT_EQ(other.sizes, block_of(99).sizes) << "they are left alone";
    auto next = job->next(kLong);
    while (next.ok() && next->has_value()) {
      EXPECT_NE((*next)->chunk, chunk) << "no row of the former items for the other ones";
      next = job->next(kLong);
    }
    EXPECT_EQ(next.error().code, ErrorCode::kConflict);
  }
}

TEST_F(JobBegunBefore, WhatIsInFlightIsAskedForAgainAfterALossOfTheConnection) {
  coordinator_.hold_results = true;
  Client client(options_for(coordinator_));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok());
  auto items = block_of(6);
  ASSERT_TRUE(job->submit(6, items, kLong).ok());
  items = block_of(5);
  ASSERT_TRUE(job->submit(5, items, kLong).ok());
  coordinator_.restart();
  while (coordinator_.counts().questions < 3) {
    std::this_thread::sleep_for(1ms);
  }
  coordinator_.hold_results = false;
  std::map<std::uint32_t, int> seen;
  take(*job, 5, seen, true);
  EXPECT_TRUE(seen.contains(6));
}

TEST(Job, AnotherSpecIsAConflict) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  ASSERT_TRUE(client.open_job({.job_key = "key"}, kLong).ok());
  const auto other = client.open_job({.job_key = "key", .spec = {.dimensions = 64}}, kLong);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, ErrorCode::kConflict);
}

TEST(Job, CancelEndsBothSides) {
  FakeCoordinator coordinator;
  coordinator.hold_results = true;
  Client client(options_for(coordinator));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok());
  auto items = block_of(0);
  ASSERT_TRUE(job->submit(0, items, kLong).ok());
  Client other(options_for(coordinator));
  ASSERT_TRUE(other.cancel(job->id(), kLong).ok());
  const auto result = job->next(kLong);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
}

TEST(Job, WindowHoldsBackTheSender) {
  FakeCoordinator coordinator;  // CHECKs that the window is kept.
  coordinator.hold_results = true;
  coordinator.window_chunks = 2;
  Client client(options_for(coordinator));
  auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_TRUE(job.ok());
  for (std::uint32_t chunk = 0; chunk < 2; ++chunk) {
    auto items = block_of(chunk);
    ASSERT_TRUE(job->submit(chunk, items, kLong).ok());
  }
  auto items = block_of(2);
  const auto full = job->submit(2, items, 50ms);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(items.sizes.size(), 2U);
}

}  // namespace
}  // namespace tessera::client
