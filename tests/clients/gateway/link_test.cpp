#include "clients/gateway/link/link.hpp"

#include <gtest/gtest.h>

#include <set>

#include "clients/cpp/items.hpp"
#include "tests/support/fake_coordinator.hpp"

namespace tessera::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

protocol::EmbedRequest request_of(const std::string& text) {
  protocol::EmbedRequest request;
  client::append_text(request.items, text);
  return request;
}

// A loop, a link on it, and a coordinator that does what the test says. Everything happens on the
// test's thread, inside run_until.
class LinkTest : public testing::Test {
 protected:
  LinkTest() {
    loop_.every(milliseconds(5), [this] {
      if (done_() || std::chrono::steady_clock::now() > give_up_) {
        loop_.stop();
      }
    });
  }
  void make_link(milliseconds outage_wait = seconds(30)) {
    link_ = std::make_unique<Link>(loop_, context_,
                                   LinkOptions{.coordinator = coordinator_.address(),
                                               .hello_every = milliseconds(100),
                                               .silence_max = milliseconds(1000),
                                               .outage_wait = outage_wait});
  }
  void run_until(std::function<bool()> done) {
    done_ = std::move(done);
    give_up_ = std::chrono::steady_clock::now() + seconds(60);
    loop_.run();
    ASSERT_TRUE(done_());
  }
  // Counts each answer once, by the text that it must belong to.
  void ask(const std::string& text, milliseconds wait = seconds(60)) {
    link_->embed(request_of(text), wait,
                 [this, text](std::variant<protocol::Message, protocol::ErrorReply> got) {
                   if (const auto* error = std::get_if<protocol::ErrorReply>(&got)) {
                     errors_.push_back(*error);
                     return;
                   }
                   const auto& reply =
                       std::get<protocol::EmbedReply>(std::get<protocol::Message>(got));
                   const auto expected =
                       test::fake_vector(std::as_bytes(std::span(text)), reply.results.dimensions);
                   EXPECT_EQ(client::row_as_floats(reply.results, 0), expected) << text;
                   answered_.insert(text);
                 });
  }

  test::FakeCoordinator coordinator_;
  http::Loop loop_;
  net::Context context_;
  std::unique_ptr<Link> link_;
  std::function<bool()> done_;
  std::chrono::steady_clock::time_point give_up_;
  std::multiset<std::string> answered_;
  std::vector<protocol::ErrorReply> errors_;
};

TEST_F(LinkTest, WhatIsAskedInOneTurnTravelsTogetherAndIsAnsweredByItself) {
  make_link();
  std::multiset<std::string> asked;
  loop_.after(milliseconds(300), [&] {
    for (int i = 0; i < 600; ++i) {
      asked.insert("text " + std::to_string(i));
      ask("text " + std::to_string(i));
    }
  });
  run_until([&] { return answered_.size() == 600; });
  EXPECT_EQ(answered_, asked);
  EXPECT_EQ(coordinator_.counts().embeds, 600U);
  EXPECT_LE(coordinator_.counts().embed_messages, 10U);
  EXPECT_EQ(link_->open_questions(), 0U);
}

TEST_F(LinkTest, QuestionsOutliveARestartOfTheCoordinator) {
  make_link();
  run_until([&] { return link_->ready(); });
  coordinator_.silent = true;
  for (int i = 0; i < 20; ++i) {
    ask("text " + std::to_string(i));
  }
  const std::uint64_t before = coordinator_.counts().embeds;
  http::Loop::Task restart = [&] {
    coordinator_.stop();
    coordinator_.silent = false;
    coordinator_.start();
  };
  bool restarted = false;
  run_until([&] {
    if (!restarted && coordinator_.counts().embeds >= before + 20) {
      restarted = true;
      restart();
    }
    return answered_.size() >= 20;
  });
  EXPECT_EQ(answered_.size(), 20U);
  EXPECT_TRUE(errors_.empty());
  EXPECT_GE(link_->asked_again(), 20U);
}

TEST_F(LinkTest, RefusalsAreHandedOn) {
  make_link();
  run_until([&] { return link_->ready(); });
  coordinator_.refuse_embeds = 1;
  ask("refused");
  run_until([&] { return !errors_.empty(); });
  EXPECT_EQ(errors_[0].code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(errors_[0].retry_after_ms, 1U);
}

TEST_F(LinkTest, WithoutACoordinatorQuestionsEnd) {
  coordinator_.stop();
  make_link(milliseconds(500));
  ask("nobody");
  run_until([&] { return !errors_.empty(); });
  EXPECT_EQ(errors_[0].code, ErrorCode::kUnavailable);
  EXPECT_FALSE(link_->ready());
}

TEST_F(LinkTest, ASilentCoordinatorDoesNotHoldAQuestionBeyondItsDeadline) {
  make_link();
  run_until([&] { return link_->ready(); });
  coordinator_.silent = true;
  ask("late", milliseconds(200));
  run_until([&] { return !errors_.empty(); });
  EXPECT_EQ(errors_[0].code, ErrorCode::kDeadlineExceeded);
}

TEST_F(LinkTest, AnOlderCoordinatorIsNotAsked) {
  coordinator_.minor = protocol::kMinorWithMetrics - 1;
  make_link(milliseconds(500));
  ask("nobody");
  run_until([&] { return !errors_.empty(); });
  EXPECT_EQ(coordinator_.counts().embeds, 0U);
}

}  // namespace
}  // namespace tessera::gateway
