// LongestMatch against the definition of merging, and the work that it does.
#include "common/tokenizer/bpe/longest_match.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/tokenizer/adversarial.hpp"
#include "common/tokenizer/bpe/merge_loop.hpp"
#include "tests/common/tokenizer/model_files.hpp"
#include "tests/common/tokenizer/plain_encoder.hpp"
#include "tests/common/tokenizer/random_spec.hpp"

namespace tessera {
namespace {

using tokenizer::LongestMatch;
using tokenizer::MergeLoop;
using tokenizer::TokenizerSpec;

using Ids = std::vector<std::int32_t>;

Ids encoded(const LongestMatch& encoder, std::string_view text, LongestMatch::Scratch& scratch) {
  Ids ids(text.size());
  ids.resize(static_cast<std::size_t>(encoder.encode(text, scratch, ids.data()) - ids.data()));
  return ids;
}

Ids merged(const MergeLoop& encoder, std::string_view text) {
  MergeLoop::Scratch scratch;
  Ids ids(text.size());
  ids.resize(static_cast<std::size_t>(encoder.encode(text, scratch, ids.data()) - ids.data()));
  return ids;
}

// Vocabularies over few letters, in which nearly all neighbours merge and most choices are wrong.
TEST(LongestMatchTest, EqualsThePlainDefinitionOnRandomVocabularies) {
  for (unsigned seed = 0; seed < 150; ++seed) {
    std::mt19937 random(seed);
    const unsigned letters = 1 + seed % 5;
    const TokenizerSpec spec = random_spec(random, 3 + random() % 200, MergeOrder::kTrained,
                                           random_runs(random, letters, 2000));
    const auto encoder = LongestMatch::make(spec);
    ASSERT_TRUE(encoder.has_value());
    const PlainEncoder plain(spec);
    LongestMatch::Scratch scratch;
    for (int round = 0; round < 60; ++round) {
      const std::string text = random_runs(random, letters, 1 + random() % 120);
      ASSERT_EQ(encoded(*encoder, text, scratch), plain.merge(text)) << seed << ": " << text;
    }
  }
}

// Long enough for many windows; the loop over a heap stands in for the quadratic definition.
TEST(LongestMatchTest, LongTextsEqualMerging) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(500 + seed);
    const unsigned letters = 1 + seed % 4;
    const TokenizerSpec spec = random_spec(random, 3 + random() % 200, MergeOrder::kTrained,
                                           random_runs(random, letters, 2000));
    const auto encoder = LongestMatch::make(spec);
    ASSERT_TRUE(encoder.has_value());
    const MergeLoop loop(spec);
    LongestMatch::Scratch scratch;
    for (int round = 0; round < 4; ++round) {
      std::string text = random_runs(random, letters, random() % 9000);
      const std::string unit = random_runs(random, letters, 1 + random() % 9);
      for (std::size_t i = random() % 2000; i > 0; --i) {
        text += unit;
      }
      text += random_runs(random, letters, 1 + random() % 2000);
      ASSERT_EQ(encoded(*encoder, text, scratch), merged(loop, text)) << "seed " << seed;
    }
  }
}

TEST(MergeLoopTest, EqualsThePlainDefinition) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    std::mt19937 random(900 + seed);
    const unsigned letters = 1 + seed % 5;
    const TokenizerSpec spec = random_spec(random, 3 + random() % 100, MergeOrder::kAny,
                                           random_runs(random, letters, 2000));
    const MergeLoop loop(spec);
    const PlainEncoder plain(spec);
    for (int round = 0; round < 30; ++round) {
      const std::string text = random_runs(random, letters, 1 + random() % 120);
      ASSERT_EQ(merged(loop, text), plain.merge(text)) << seed << ": " << text;
    }
  }
}

TEST(LongestMatchTest, IsOnlyMadeWhereIdsFollowTheMerges) {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    ASSERT_TRUE(spec.vocabulary.add(std::string(1, static_cast<char>(byte)), byte));
    spec.byte_ids.push_back(byte);
  }
  ASSERT_TRUE(spec.vocabulary.add("ab", 256));
  ASSERT_TRUE(spec.vocabulary.add("abc", 257));
  EXPECT_FALSE(LongestMatch::make(spec).has_value());  // No merges at all.
  spec.merges = {{'a', 'b', 256}, {256, 'c', 257}};
  EXPECT_TRUE(LongestMatch::make(spec).has_value());
  spec.merges = {{256, 'c', 257}, {'a', 'b', 256}};
  EXPECT_FALSE(LongestMatch::make(spec).has_value());  // A part that comes later.
  ASSERT_TRUE(spec.vocabulary.add("bc", 258));
  spec.merges = {{'a', 'b', 256}, {256, 'c', 257}, {'b', 'c', 258}, {'a', 258, 257}};
  EXPECT_FALSE(LongestMatch::make(spec).has_value());  // Two ways to one token.
}

TokenizerSpec spec_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string json(std::istreambuf_iterator<char>(file), {});
  return tokenizer::parse_tokenizer_json(json).value();
}

// What must never come back is work that grows faster than the text, so it is counted, not timed:
// tokens tried per byte are few, and no more in a text sixteen times as long.
TEST(LongestMatchTest, WorkIsLinearInTheText) {
  constexpr double kMostPerByte = 3.0;
  constexpr std::size_t kShort = 1U << 15U;
  const TokenizerSpec spec = spec_of(tokenizer_file_4b());
  const auto encoder = LongestMatch::make(spec);
  ASSERT_TRUE(encoder.has_value());
  const auto tried_per_byte = [&](const std::string& text) {
    LongestMatch::Scratch scratch;
    encoded(*encoder, text, scratch);
    return static_cast<double>(scratch.tried) / static_cast<double>(text.size());
  };
  const auto short_texts = adversarial_texts(tokenizer_4b(), kShort);
  const auto long_texts = adversarial_texts(tokenizer_4b(), 16 * kShort);
  for (std::size_t i = 0; i < short_texts.size(); ++i) {
    const double in_short = tried_per_byte(short_texts[i].second);
    const double in_long = tried_per_byte(long_texts[i].second);
    EXPECT_LT(in_short, kMostPerByte) << short_texts[i].first;
    EXPECT_LT(in_long, 1.1 * in_short + 0.01) << short_texts[i].first;
  }
}

// The worst that a vocabulary can do: each place has many tokens, and many of them end nowhere.
TEST(LongestMatchTest, WorkIsLinearForRandomVocabularies) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random(700 + seed);
    const unsigned letters = 1 + seed % 3;
    const TokenizerSpec spec = random_spec(random, 3 + random() % 300, MergeOrder::kTrained,
                                           random_runs(random, letters, 2000));
    const auto encoder = LongestMatch::make(spec);
    ASSERT_TRUE(encoder.has_value());
    LongestMatch::Scratch scratch;
    const std::string text = random_runs(random, letters, 100'000);
    encoded(*encoder, text, scratch);
    EXPECT_LT(static_cast<double>(scratch.tried) / static_cast<double>(text.size()), 12) << seed;
  }
}

}  // namespace
}  // namespace tessera
