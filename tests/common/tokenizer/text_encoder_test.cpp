// The fast encoder against the plain definition, on random text and random vocabularies.
#include "common/tokenizer/text_encoder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/tokenizer/text/utf8.hpp"
#include "tests/common/tokenizer/plain_encoder.hpp"
#include "tests/common/tokenizer/random_spec.hpp"

namespace tessera {
namespace {

using tokenizer::TextEncoder;
using tokenizer::TokenizerSpec;

MergeOrder order_of(unsigned seed) {
  return seed % 2 == 0 ? MergeOrder::kTrained : MergeOrder::kAny;
}

std::vector<std::int32_t> fast(const TextEncoder& encoder, std::string_view text,
                               TextEncoder::Scratch& scratch) {
  tokenizer::IdBuffer ids;
  encoder.encode(text, scratch, ids);
  return {ids.ids().begin(), ids.ids().end()};
}

TEST(TextEncoderTest, EqualsThePlainDefinitionOnRandomVocabularies) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const TokenizerSpec spec =
        random_spec(random, 5 + random() % 400, order_of(seed), random_text(random, 400));
    const PlainEncoder plain(spec);
    const Result<TextEncoder> encoder = TextEncoder::make(spec);
    ASSERT_TRUE(encoder.ok());
    TextEncoder::Scratch scratch;
    for (int round = 0; round < 150; ++round) {
      const std::string text = random_text(random, 1 + random() % 60);
      ASSERT_EQ(fast(*encoder, text, scratch), plain.encode(text))
          << "seed " << seed << ": " << text;
    }
  }
}

TEST(TextEncoderTest, LongPiecesEqualThePlainDefinition) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random(1000 + seed);
    const TokenizerSpec spec =
        random_spec(random, 20 + random() % 300, order_of(seed), random_text(random, 400));
    const PlainEncoder plain(spec);
    const Result<TextEncoder> encoder = TextEncoder::make(spec);
    ASSERT_TRUE(encoder.ok());
    TextEncoder::Scratch scratch;
    const std::string letters = seed % 3 == 0 ? "ab" : seed % 3 == 1 ? "abc" : "abcde";
    for (int round = 0; round < 20; ++round) {
      std::string text;
      while (text.size() < 65 + random() % 900) {
        text.append(1 + random() % 4, letters[random() % letters.size()]);
      }
      ASSERT_EQ(fast(*encoder, text, scratch), plain.encode(text))
          << "seed " << seed << ": " << text;
    }
  }
}

TEST(TextEncoderTest, EveryLengthAndEnd) {
  std::mt19937 random(3);
  const TokenizerSpec spec =
      random_spec(random, 200, MergeOrder::kTrained, random_text(random, 400));
  const PlainEncoder plain(spec);
  const Result<TextEncoder> encoder = TextEncoder::make(spec);
  ASSERT_TRUE(encoder.ok());
  TextEncoder::Scratch scratch;
  for (std::size_t length = 0; length < 80; ++length) {
    for (const std::string& end : kUnits) {
      for (const std::string& unit : {std::string("a"), std::string(" "), std::string("!")}) {
        std::string text;
        for (std::size_t i = 0; i < length; ++i) {
          text += unit;
        }
        text += end;
        ASSERT_EQ(fast(*encoder, text, scratch), plain.encode(text)) << text;
        text += "x";
        ASSERT_EQ(fast(*encoder, text, scratch), plain.encode(text)) << text;
      }
    }
  }
}

TEST(TextEncoderTest, ACacheThatOverflowsForgetsAndStaysRight) {
  std::mt19937 random(4);
  const TokenizerSpec spec =
      random_spec(random, 100, MergeOrder::kTrained, random_text(random, 400));
  const PlainEncoder plain(spec);
  const Result<TextEncoder> encoder = TextEncoder::make(spec);
  ASSERT_TRUE(encoder.ok());
  TextEncoder::Scratch scratch;
  for (int i = 0; i < 400'000; ++i) {
    std::string word = " ";
    for (int k = 0; k < 9; ++k) {
      word.push_back(static_cast<char>('a' + random() % 26));
    }
    const auto ids = fast(*encoder, word, scratch);
    if (i % 64 == 0) {
      ASSERT_EQ(ids, plain.encode(word)) << word;
    }
  }
}

}  // namespace
}  // namespace tessera
