#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera {

// Fragments in which splitting and merging go wrong, if anywhere.
inline const std::vector<std::string> kUnits = {"a",
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

inline std::string random_text(std::mt19937& random, std::size_t units) {
  std::string text;
  for (std::size_t i = 0; i < units; ++i) {
    const std::string& unit = kUnits[random() % kUnits.size()];
    for (std::size_t n = random() % 20 == 0 ? 30 : 1; n > 0; --n) {
      text += unit;
    }
  }
  return text;
}

// Runs of up to four of each of the first `letters` letters.
inline std::string random_runs(std::mt19937& random, unsigned letters, std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) {
    text.append(1 + random() % 4, static_cast<char>('a' + random() % letters));
  }
  return text;
}

// As training writes merges: each gives a new token, whose parts are there already. Or any.
enum class MergeOrder { kTrained, kAny };

// The 256 bytes, and at most `merges` merges of two neighbours somewhere in `sample`, so that they
// apply: far from what training gives, with tokens that merging never reaches and parts of code
// points.
inline tokenizer::TokenizerSpec random_spec(std::mt19937& random, std::size_t merges,
                                            MergeOrder order, const std::string& sample) {
  tokenizer::TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_TRUE(spec.vocabulary.add(std::string(1, static_cast<char>(byte)), byte));
    spec.byte_ids.push_back(byte);
  }
  std::set<std::pair<std::int32_t, std::int32_t>> pairs;
  for (std::size_t tries = 200 * merges; spec.merges.size() < merges && tries > 0; --tries) {
    const std::size_t middle = 1 + random() % (sample.size() - 1);
    const std::size_t left_size = 1 + random() % std::min<std::size_t>(middle, 5);
    const std::size_t right_size = 1 + random() % std::min<std::size_t>(sample.size() - middle, 5);
    const std::string left = sample.substr(middle - left_size, left_size);
    const std::string right = sample.substr(middle, right_size);
    const std::int32_t left_id = spec.vocabulary.find(left);
    const std::int32_t right_id = spec.vocabulary.find(right);
    std::int32_t product = spec.vocabulary.find(left + right);
    const bool is_new = product < 0;
    if (left_id < 0 || right_id < 0 || (order == MergeOrder::kTrained && !is_new) ||
        !pairs.emplace(left_id, right_id).second) {
      continue;
    }
    if (is_new) {
      product = static_cast<std::int32_t>(spec.vocabulary.size());
      EXPECT_TRUE(spec.vocabulary.add(left + right, product));
    }
    spec.merges.push_back({left_id, right_id, product});
  }
  return spec;
}

}  // namespace tessera
