#include "common/wire/embed_batch.hpp"

#include <gtest/gtest.h>

#include "common/wire/codec.hpp"

namespace tessera::protocol {
namespace {

Bytes bytes_of(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

EmbedRequest request_of(std::uint64_t id, const std::vector<std::string>& texts) {
  EmbedRequest request{.request_id = id, .spec = {}, .items = {}};
  for (const std::string& text : texts) {
    request.items.sizes.push_back(static_cast<std::uint32_t>(text.size()));
    const Bytes bytes = bytes_of(text);
    request.items.payload.insert(request.items.payload.end(), bytes.begin(), bytes.end());
  }
  return request;
}

template <typename M>
M over_the_wire(M message) {
  Frames frames = encode(std::move(message));
  auto decoded = decode(frames.header, std::move(frames.payload));
  CHECK(decoded.ok());
  return std::get<M>(std::move(decoded).value());
}

TEST(EmbedBatch, EachRequestKeepsItsOwnItemsAndSettings) {
  std::vector<EmbedRequest> sent{request_of(1, {"one", "two"}), request_of(2, {""}),
                                 request_of(3, {"three"})};
  sent[2].spec.dimensions = 64;
  sent[2].lane = Lane::kBulk;
  auto got = unpack(over_the_wire(pack(sent)));
  ASSERT_TRUE(got.ok());
  ASSERT_EQ(got->size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*got)[i].request_id, i + 1);
    EXPECT_EQ((*got)[i].items.sizes, sent[i].items.sizes);
    EXPECT_EQ((*got)[i].items.payload, sent[i].items.payload);
  }
  EXPECT_EQ((*got)[2].spec.dimensions, 64U);
  EXPECT_EQ((*got)[2].lane, Lane::kBulk);
}

TEST(EmbedBatch, EachReplyKeepsItsOwnRowsAndErrors) {
  EmbedReply first{.request_id = 7, .results = {}};
  first.results.codes = {0, 6};
  first.results.errors = {{1, "empty"}};
  first.results.dimensions = 2;
  first.results.payload = bytes_of("12345678");
  EmbedReply second{.request_id = 8, .results = {}};
  second.results.codes = {0, 0};
  second.results.dimensions = 2;
  second.results.vector_type = VectorType::kFloat16;
  second.results.payload = bytes_of("abcdefgh");
  auto got = unpack(over_the_wire(pack(std::vector{first, second})));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ((*got)[0].results.payload, first.results.payload);
  EXPECT_EQ((*got)[0].results.errors, first.results.errors);
  EXPECT_EQ((*got)[1].results.payload, second.results.payload);
}

TEST(EmbedBatch, SizesThatDoNotMatchThePayloadAreRefused) {
  struct Case {
    const char* name;
    std::vector<std::uint32_t> sizes;
    std::size_t payload;
  };
  const Case cases[] = {{"too few bytes", {3, 3}, 5},
                        {"bytes left over", {3, 3}, 7},
                        {"a sum beyond 32 bits", {0xFFFFFFFF, 0xFFFFFFFF}, 6}};
  for (const Case& c : cases) {
    EmbedRequests batch;
    for (const std::uint32_t size : c.sizes) {
      EmbedRequest request;
      request.items.sizes = {size};
      batch.requests.push_back(request);
    }
    batch.payload.resize(c.payload);
    EXPECT_FALSE(unpack(batch).ok()) << c.name;
  }
  EXPECT_FALSE(unpack(EmbedRequests{}).ok());
  EmbedRequests many;
  many.requests.resize(kBatchRequestsMax + 1);
  EXPECT_FALSE(unpack(many).ok());
}

}  // namespace
}  // namespace tessera::protocol
