#include "coordinator/core/flow/cache.hpp"

#include <gtest/gtest.h>

namespace tessera::coordinator {
namespace {

using protocol::Lane;

CacheKey key_of(unsigned number) {
  CacheKey key{};
  std::memcpy(key.data(), &number, sizeof(number));
  return key;
}

EmbeddingPtr embedding_of(std::uint16_t value, std::size_t width = 8) {
  return std::make_shared<const Embedding>(
      Embedding{.tokens = value, .tokens_cut = 0, .values = std::vector(width, value)});
}

TEST(LruCache, KeepsTheRecentlyUsedWithinItsBytes) {
  LruCache cache(1000);  // Four entries of 16 bytes and the bookkeeping.
  for (std::uint16_t i = 0; i < 4; ++i) {
    cache.insert(key_of(i), embedding_of(i));
  }
  const std::size_t held = cache.size();
  EXPECT_LE(cache.bytes(), 1000U);
  ASSERT_GE(held, 3U);
  const unsigned oldest = 4 - static_cast<unsigned>(held);
  ASSERT_NE(cache.find(key_of(oldest)), nullptr);  // Used: no longer the oldest.
  cache.insert(key_of(9), embedding_of(9));
  EXPECT_NE(cache.find(key_of(oldest)), nullptr);
  EXPECT_EQ(cache.find(key_of(oldest + 1)), nullptr);
  EXPECT_EQ(cache.find(key_of(9))->values[0], 9);
}

TEST(LruCache, ReplacesAndRefusesWhatIsTooLarge) {
  LruCache cache(1000);
  cache.insert(key_of(1), embedding_of(1));
  const std::size_t bytes = cache.bytes();
  cache.insert(key_of(1), embedding_of(2));
  EXPECT_EQ(cache.bytes(), bytes);
  EXPECT_EQ(cache.find(key_of(1))->values[0], 2);
  cache.insert(key_of(2), embedding_of(3, 10'000));
  EXPECT_EQ(cache.find(key_of(2)), nullptr);
  EXPECT_TRUE(cache.erase(key_of(1)));
  EXPECT_EQ(cache.bytes(), 0U);
}

TEST(EmbeddingCache, AJobDoesNotPushOutQueries) {
  EmbeddingCache cache(2000);
  cache.insert(key_of(1), Lane::kInteractive, embedding_of(1));
  for (unsigned i = 100; i < 1000; ++i) {
    cache.insert(key_of(i), Lane::kBulk, embedding_of(1));
  }
  EXPECT_NE(cache.find(key_of(1), Lane::kBulk), nullptr);
  EXPECT_LE(cache.bytes(), 2000U);
}

TEST(EmbeddingCache, AQueryTakesAJobsEntryOver) {
  EmbeddingCache cache(2000);
  cache.insert(key_of(1), Lane::kBulk, embedding_of(1));
  EXPECT_NE(cache.find(key_of(1), Lane::kInteractive), nullptr);
  for (unsigned i = 100; i < 200; ++i) {
    cache.insert(key_of(i), Lane::kBulk, embedding_of(1));
  }
  EXPECT_NE(cache.find(key_of(1), Lane::kInteractive), nullptr);
}

TEST(CacheValue, EveryFlippedByteAndEveryCutIsAMiss) {
  const Embedding embedding{.tokens = 7, .tokens_cut = 2, .values = {1, 2, 3, 4}};
  const auto value = encode_cache_value(key_of(1), embedding);
  const auto back = decode_cache_value(key_of(1), 4, value);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->values, embedding.values);
  EXPECT_EQ(back->tokens, 7U);
  EXPECT_EQ(back->tokens_cut, 2U);
  for (std::size_t i = 0; i < value.size(); ++i) {
    auto damaged = value;
    damaged[i] ^= std::byte{1};
    EXPECT_FALSE(decode_cache_value(key_of(1), 4, damaged).has_value()) << i;
    EXPECT_FALSE(decode_cache_value(key_of(1), 4, std::span(value).first(i)).has_value()) << i;
  }
  EXPECT_FALSE(decode_cache_value(key_of(2), 4, value).has_value()) << "another key's value";
  EXPECT_FALSE(decode_cache_value(key_of(1), 2, value).has_value()) << "another model's width";
}

}  // namespace
}  // namespace tessera::coordinator
