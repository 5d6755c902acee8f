#include "common/wire/chunk_digest.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace tessera::protocol {
namespace {

ItemBlock block_of(const std::vector<std::string>& items, std::vector<std::uint8_t> kinds = {}) {
  ItemBlock block{.sizes = {}, .kinds = std::move(kinds), .payload = {}};
  for (const std::string& item : items) {
    block.sizes.push_back(static_cast<std::uint32_t>(item.size()));
    for (const char c : item) {
      block.payload.push_back(static_cast<std::byte>(c));
    }
  }
  return block;
}

std::string hex(const ChunkDigest& digest) {
  static const char* const kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : digest) {
    text += {kDigits[byte >> 4U], kDigits[byte & 15U]};
  }
  return text;
}

// The value is Python's hashlib.blake2b(digest_size=16) over what the header describes.
TEST(ChunkDigest, IsWhatTheProtocolSays) {
  const ItemBlock block = block_of({"hi", std::string("\5\0\0\0\6\0\0\0", 8), ""}, {0, 1, 0});
  EXPECT_EQ(hex(digest_of(block)), "80baca73a5baac4d37545ef83219b0d8");
}

TEST(ChunkDigest, TellsAllBlocksApart) {
  const ItemBlock blocks[] = {
      block_of({}),           block_of({""}),          block_of({"", ""}),
      block_of({"abcd"}),     block_of({"abcd"}, {1}), block_of({"abcd", ""}),
      block_of({"", "abcd"}), block_of({"ab", "cd"}),  block_of({"ab", "cd"}, {0, 1}),
      block_of({"cd", "ab"}), block_of({"ab", "cD"}),
  };
  std::set<std::string> digests;
  for (const ItemBlock& block : blocks) {
    EXPECT_TRUE(digests.insert(hex(digest_of(block))).second);
  }
  EXPECT_EQ(digest_of(block_of({"a", "b"})), digest_of(block_of({"a", "b"}, {0, 0})))
      << "no kinds means all texts";
}

TEST(ChunkDigest, IsReadFromSixteenBytesOnly) {
  const ChunkDigest digest = digest_of(block_of({"a"}));
  EXPECT_EQ(to_digest(digest), digest);
  EXPECT_FALSE(to_digest(std::span(digest).first(15)));
  EXPECT_FALSE(to_digest(std::vector<std::uint8_t>(17, 1)));
  EXPECT_FALSE(to_digest(std::vector<std::uint8_t>(16, 0)));
  EXPECT_FALSE(to_digest({}));
}

}  // namespace
}  // namespace tessera::protocol
