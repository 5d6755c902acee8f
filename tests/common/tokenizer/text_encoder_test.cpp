// The fast encoder against the plain definition, on random text and random vocabularies.
#include "common/tokenizer/text_encoder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/tokenizer/utf8.hpp"
#include "tests/common/tokenizer/plain_encoder.hpp"
#include "tests/common/tokenizer/tiny_tokenizer.hpp"

namespace tessera {
namespace {

using tokenizer::Merge;
using tokenizer::TextEncoder;
using tokenizer::TokenizerSpec;

const std::vector<std::string> kUnits = {"a",
                                         "b",
                                         "c",
                                         "d",
                                         "e",
                                         "A",
                                         "'",
                                         "'s",
                                         "'LL",
                                         "'\xC5\xBF",
                                         " ",
                                         "  ",
                                         "\n",
                                         "\r\n",
                                         "\t",
                                         "1",
                                         "23",
                                         "!",
                                         "?!",
                                         "_",
                                         "\xC2\xA0",
                                         "\xC2\x85",
                                         "\xE3\x80\x80",
                                         "\xC3\xA9",
                                         "\xD0\xB0",
                                         "\xD0\xB1\xD0\xB2",
                                         "\xE4\xB8\xAD",
                                         "\xE4\xB8\xAD\xE6\x96\x87",
                                         "\xE7\x9A\x84",
                                         "\xCC\x81",
                                         "\xF0\x9F\x98\x80",
                                         "\xE2\x80\x8D",
                                         std::string(1, '\0'),
                                         "abcabc",
                                         "                "};

std::string random_text(std::mt19937& random, std::size_t units) {
  std::string text;
  for (std::size_t i = 0; i < units; ++i) {
    const std::string& unit = kUnits[random() % kUnits.size()];
    for (std::size_t n = random() % 20 == 0 ? 30 : 1; n > 0; --n) {
      text += unit;
    }
  }
  return text;
}

// The 256 bytes, and merges of random pairs: far from what training gives, with tokens that merging
// never reaches and parts of code points.
TokenizerSpec random_spec(std::mt19937& random, std::size_t merges) {
  TokenizerSpec spec;
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) {
    pieces.emplace_back(1, static_cast<char>(byte));
    EXPECT_TRUE(spec.vocabulary.add(pieces.back(), byte));
    spec.byte_ids.push_back(byte);
  }
  const std::string sample = random_text(random, 400);
  std::set<std::pair<std::int32_t, std::int32_t>> pairs;
  while (spec.merges.size() < merges) {
    // Two neighbours somewhere in the sample, so that merges apply.
    const std::size_t middle = 1 + random() % (sample.size() - 1);
    const std::size_t left_size = 1 + random() % std::min<std::size_t>(middle, 5);
    const std::size_t right_size = 1 + random() % std::min<std::size_t>(sample.size() - middle, 5);
    const std::string left = sample.substr(middle - left_size, left_size);
    const std::string right = sample.substr(middle, right_size);
    const std::int32_t left_id = spec.vocabulary.find(left);
    const std::int32_t right_id = spec.vocabulary.find(right);
    if (left_id < 0 || right_id < 0 || !pairs.emplace(left_id, right_id).second) {
      continue;
    }
    std::int32_t product = spec.vocabulary.find(left + right);
    if (product < 0) {
      product = static_cast<std::int32_t>(spec.vocabulary.size());
      EXPECT_TRUE(spec.vocabulary.add(left + right, product));
    }
    spec.merges.push_back({left_id, right_id, product});
  }
  return spec;
}

std::vector<std::int32_t> fast(const TextEncoder& encoder, std::string_view text,
                               TextEncoder::Scratch& scratch) {
  tokenizer::IdBuffer ids;
  encoder.encode(text, scratch, ids);
  return {ids.ids().begin(), ids.ids().end()};
}

TEST(TextEncoderTest, EqualsThePlainDefinitionOnRandomVocabularies) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const TokenizerSpec spec = random_spec(random, 5 + random() % 400);
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
    const TokenizerSpec spec = random_spec(random, 20 + random() % 300);
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
  const TokenizerSpec spec = random_spec(random, 200);
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
  const TokenizerSpec spec = random_spec(random, 100);
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
