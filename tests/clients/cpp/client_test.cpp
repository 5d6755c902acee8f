#include "clients/cpp/client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "tests/support/fake_coordinator.hpp"

namespace tessera::client {
namespace {

using test::fake_vector;
using test::FakeCoordinator;
using namespace std::chrono_literals;

constexpr auto kLong = 60s;  // No assertion is about time; this only ends a hang.

ClientOptions options_for(const FakeCoordinator& coordinator) {
  ClientOptions options{.coordinator = coordinator.address()};
  options.ping = 50ms;
  options.silence_max = 300ms;
  options.hello_again = 50ms;
  return options;
}

std::vector<Item> texts(int count) {
  std::vector<Item> items;
  for (int i = 0; i < count; ++i) {
    items.push_back({.text = "text " + std::to_string(i), .ids = {}});
  }
  return items;
}

std::vector<float> expected(const std::string& text) {
  return fake_vector(std::as_bytes(std::span(text)), 32);
}

TEST(Client, EmbedsManyItemsInOrder) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  const auto items = texts(2000);
  const auto result = client.embed(items, {}, kLong);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->items.size(), items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(result->items[i].vector, expected(items[i].text)) << i;
  }
}

// An older coordinator ignores the field and would embed the texts without the prompt.
TEST(Client, SendsNoPromptNameToACoordinatorThatWouldIgnoreIt) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  EXPECT_TRUE(client.embed(texts(2), {.prompt_name = "document"}, kLong).ok());
  coordinator.minor = 0;
  coordinator.restart();
  const std::uint64_t served = coordinator.counts().items_embedded;
  while (client.embed(texts(1), {}, kLong).ok() && coordinator.counts().items_embedded == served) {
  }
  const auto refused = client.embed(texts(2), {.prompt_name = "document"}, kLong);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("without prompt names"));
  const auto job = client.open_job({.job_key = "k", .spec = {.prompt_name = "document"}}, kLong);
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(job.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(coordinator.counts().opens, 0U);
}

TEST(Client, KeepsErrorsAtTheirItems) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  auto items = texts(300);
  items[7].text.clear();
  items[299].text.clear();
  items[50].text.assign(protocol::kTextBytesMax + 1, 'x');
  const auto result = client.embed(items, {}, kLong);
  ASSERT_TRUE(result.ok());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const ErrorCode code = i == 7 || i == 299 ? ErrorCode::kEmptyText
                           : i == 50          ? ErrorCode::kTooLong
                                              : ErrorCode::kOk;
    EXPECT_EQ(result->items[i].error.code, code) << i;
    EXPECT_EQ(result->items[i].vector.empty(), code != ErrorCode::kOk) << i;
  }
  EXPECT_EQ(result->items[8].vector, expected(items[8].text));
}

TEST(Client, TriesAgainWhenTheCoordinatorIsFull) {
  FakeCoordinator coordinator;
  coordinator.refuse_embeds = 5;
  Client client(options_for(coordinator));
  const auto result = client.embed(texts(3), {}, kLong);
  ASSERT_TRUE(result.ok());
  EXPECT_GE(coordinator.counts().embeds, 6U);
}

TEST(Client, ReportsRefusalAtTheDeadline) {
  FakeCoordinator coordinator;
  coordinator.refuse_embeds = 1'000'000;
  Client client(options_for(coordinator));
  const auto result = client.embed(texts(1), {}, 300ms);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kResourceExhausted);
}

TEST(Client, SaysWhenNobodyAnswers) {
  Client client({.coordinator = "tcp://127.0.0.1:9"});
  const auto hello = client.connect(100ms);
  ASSERT_FALSE(hello.ok());
  EXPECT_EQ(hello.error().code, ErrorCode::kUnavailable);
}

TEST(Client, ShowsWhatTheCoordinatorCouldNotReadInsteadOfWaiting) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  ASSERT_TRUE(client.connect(kLong).ok());
  coordinator.reads_nothing = true;
  const auto result = client.embed(texts(1), {}, kLong);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(result.error().message, "field 2 has a wrong type or value");
  const auto job = client.open_job({.job_key = "key"}, kLong);
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(job.error().code, ErrorCode::kInvalidArgument);
  coordinator.reads_nothing = false;
  EXPECT_TRUE(client.embed(texts(1), {}, kLong).ok()) << "the connection is as good as before";
}

TEST(Client, SurvivesARestartWithARequestInFlight) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  ASSERT_TRUE(client.connect(kLong).ok());
  coordinator.stop();
  Result<EmbedResult> result = Error{};
  std::jthread asking([&] { result = client.embed(texts(10), {}, kLong); });
  std::this_thread::sleep_for(100ms);
  coordinator.start();
  asking.join();
  EXPECT_TRUE(result.ok());
}

TEST(Client, AsksAgainWhatABrokenConnectionLost) {
  FakeCoordinator coordinator;
  ClientOptions options{.coordinator = coordinator.address()};
  options.ping = options.silence_max = options.hello_again = 1h;  // None of these tells.
  Client client(options);
  ASSERT_TRUE(client.connect(kLong).ok());
  coordinator.silent = true;
  Result<EmbedResult> result = Error{};
  std::jthread asking([&] { result = client.embed(texts(10), {}, kLong); });
  std::this_thread::sleep_for(100ms);
  coordinator.stop();
  coordinator.silent = false;
  coordinator.start();
  asking.join();
  EXPECT_TRUE(result.ok());
}

TEST(Client, TakesAFreshSocketWhenTheCoordinatorIsSilent) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  ASSERT_TRUE(client.connect(kLong).ok());
  coordinator.silent = true;
  std::jthread speaking([&] {
    std::this_thread::sleep_for(800ms);
    coordinator.silent = false;
  });
  EXPECT_TRUE(client.embed(texts(10), {}, kLong).ok());
}

TEST(Client, ServesManyThreads) {
  FakeCoordinator coordinator;
  Client client(options_for(coordinator));
  std::vector<std::jthread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        good += client.embed(texts(5), {}, kLong).ok() ? 1 : 0;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(good, 80);
}

}  // namespace
}  // namespace tessera::client
