#include "coordinator/core/events/reply_batch.hpp"

#include <gtest/gtest.h>

#include <set>

#include "common/wire/embed_batch.hpp"
#include "tests/coordinator/core/core_harness.hpp"

namespace tessera::coordinator {
namespace {

protocol::EmbedRequest request_of(std::uint64_t id, const std::string& text) {
  return {.request_id = id, .spec = {}, .items = simulation::block_of({text})};
}

// The ids of all replies that the peer got, alone and in batches.
std::multiset<std::uint64_t> answered(const CoreHarness& harness, const std::string& peer) {
  std::multiset<std::uint64_t> ids;
  for (const auto& reply : harness.got<protocol::EmbedReply>(peer)) {
    ids.insert(reply.request_id);
  }
  for (const auto& batch : harness.got<protocol::EmbedReplies>(peer)) {
    const auto replies = protocol::unpack(batch);
    CHECK(replies.ok());
    for (const auto& reply : *replies) {
      ids.insert(reply.request_id);
    }
  }
  return ids;
}

TEST(ReplyBatch, RequestsThatTravelTogetherAreAnsweredEachByItself) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.from_client("g", protocol::ClientHello{});
  harness.from_client("g", protocol::pack(std::vector{request_of(1, "hit")}));
  harness.work();
  ASSERT_EQ(answered(harness, "g"), (std::multiset<std::uint64_t>{1}));
  std::vector<protocol::EmbedRequest> requests;
  for (std::uint64_t id = 2; id <= 9; ++id) {
    requests.push_back(request_of(id, id < 9 ? "hit" : "miss"));
  }
  harness.from_client("g", protocol::pack(std::move(requests)));
  // The hits are there in one message and do not wait for the miss.
  EXPECT_EQ(harness.got<protocol::EmbedReplies>("g").size(), 1U);
  EXPECT_EQ(answered(harness, "g"), (std::multiset<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
  harness.work();
  EXPECT_EQ(answered(harness, "g"), (std::multiset<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(ReplyBatch, WhoSendsSingleRequestsGetsSingleReplies) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.from_client("c", protocol::ClientHello{});
  harness.from_client("c", request_of(1, "a"));
  harness.from_client("c", request_of(2, "b"));
  harness.work();
  EXPECT_EQ(harness.got<protocol::EmbedReply>("c").size(), 2U);
  EXPECT_TRUE(harness.got<protocol::EmbedReplies>("c").empty());
}

TEST(ReplyBatch, ARequestThatIsRefusedLeavesTheOthersAlone) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.from_client("g", protocol::ClientHello{});
  auto wrong = request_of(2, "b");
  wrong.spec.dimensions = 7;
  harness.from_client("g",
                      protocol::pack(std::vector{request_of(1, "a"), wrong, request_of(3, "c")}));
  harness.work();
  const auto errors = harness.got<protocol::ErrorReply>("g");
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0].request_id, 2U);
  EXPECT_EQ(answered(harness, "g"), (std::multiset<std::uint64_t>{1, 3}));
}

TEST(ReplyBatch, LargeRepliesTravelAlone) {
  Actions actions;
  for (std::uint64_t id = 1; id <= 5; ++id) {
    protocol::EmbedReply reply{.request_id = id, .results = {}};
    reply.results.codes = {0};
    reply.results.dimensions = id == 3 ? 1U << 18 : 4;
    reply.results.payload.resize(protocol::row_bytes(reply.results));
    actions.push_back(SendClient{id == 5 ? "other" : "g", std::move(reply)});
  }
  pack_replies(actions, [](const std::string& peer) { return peer == "g"; });
  std::multiset<std::size_t> sizes;
  for (Action& action : actions) {
    auto& message = std::get<SendClient>(action).message;
    if (auto* batch = std::get_if<protocol::EmbedReplies>(&message)) {
      sizes.insert(batch->replies.size());
    } else {
      sizes.insert(1);
    }
  }
  EXPECT_EQ(sizes, (std::multiset<std::size_t>{1, 1, 3}));
}

}  // namespace
}  // namespace tessera::coordinator
