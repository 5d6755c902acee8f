#include "common/tokenizer/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/common/tokenizer/model_files.hpp"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int32_t kEnd = 151643;

std::vector<std::int32_t> ids(const Tokenizer& tokenizer, std::string_view text,
                              const EncodeOptions& options = {}) {
  const Result<Encoding> encoding = tokenizer.encode(text, options);
  return encoding ? encoding->ids : std::vector<std::int32_t>{-1};
}

TEST(TokenizerTest, EndsWithTheTemplatesToken) {
  EXPECT_THAT(ids(tokenizer_06b(), "!"), ElementsAre(0, kEnd));
  EXPECT_THAT(ids(tokenizer_06b(), ""), ElementsAre(kEnd));
  EXPECT_THAT(ids(tokenizer_06b(), "!", {.add_template = false}), ElementsAre(0));
  EXPECT_THAT(ids(tokenizer_06b(), "x<|endoftext|>"), ElementsAre(87, kEnd, kEnd));
  EXPECT_TRUE(tokenizer_06b().self_test().ok());
  EXPECT_TRUE(tokenizer_4b().self_test().ok());
  EXPECT_THAT(tokenizer_06b().suffix_ids(), ElementsAre(kEnd));
}

TEST(TokenizerTest, AddedTokensDifferPerModel) {
  EXPECT_THAT(ids(tokenizer_06b(), "<think>x</think>"), ElementsAre(151667, 87, 151668, kEnd));
  EXPECT_THAT(ids(tokenizer_4b(), "<think>x</think>"),
              ElementsAre(13708, 766, 28257, 522, 26865, 29, kEnd));
  EXPECT_EQ(tokenizer_06b().vocab_size(), 151669);
  EXPECT_EQ(tokenizer_4b().vocab_size(), 151665);
}

TEST(TokenizerTest, NothingComposesAcrossAnAddedToken) {
  EXPECT_THAT(ids(tokenizer_06b(), "e<|im_end|>\xCC\x81"), ElementsAre(68, 151645, 53839, kEnd));
}

TEST(TokenizerTest, SpecialTokensAsPlainText) {
  const EncodeOptions plain{.special_tokens_in_text = false};
  const auto as_text = ids(tokenizer_06b(), "a<|im_end|>b", plain);
  EXPECT_THAT(as_text, testing::Not(testing::Contains(151645)));
  std::string joined;
  for (const std::int32_t id : as_text) {
    joined += tokenizer_06b().piece(id);
  }
  EXPECT_EQ(joined, "a<|im_end|>b<|endoftext|>");
  // Marked as not special in the file, so still a token.
  EXPECT_THAT(ids(tokenizer_06b(), "<think>", plain), ElementsAre(151667, kEnd));
}

TEST(TokenizerTest, InvalidUtf8IsAnErrorOrReplaced) {
  const Result<Encoding> refused = tokenizer_06b().encode("ab\xFFz");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidUtf8);
  EXPECT_THAT(refused.error().message, HasSubstr("byte 2"));
  const EncodeOptions replace{.replace_invalid_utf8 = true};
  EXPECT_EQ(ids(tokenizer_06b(), "ab\xFFz", replace), ids(tokenizer_06b(), "ab\xEF\xBF\xBDz"));
  // A truncated sequence is one replacement, a surrogate three: the maximal-part rule.
  EXPECT_EQ(ids(tokenizer_06b(), "\xE4\xB8", replace), ids(tokenizer_06b(), "\xEF\xBF\xBD"));
  EXPECT_EQ(ids(tokenizer_06b(), "\xED\xA0\x80", replace),
            ids(tokenizer_06b(), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"));
}

TEST(TokenizerTest, TruncationKeepsTheTemplate) {
  const std::string text = "a b c d e f";
  const auto all = ids(tokenizer_06b(), text);
  ASSERT_EQ(all.size(), 7U);
  EXPECT_EQ(ids(tokenizer_06b(), text, {.max_tokens = 7}), all);
  const Result<Encoding> refused = tokenizer_06b().encode(text, {.max_tokens = 6});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLong);
  EXPECT_EQ(refused.error().message, "the text has 7 tokens, the limit is 6");

  const auto right = tokenizer_06b().encode(text, {.truncate = Truncate::kRight, .max_tokens = 5});
  EXPECT_THAT(right->ids, ElementsAre(all[0], all[1], all[2], all[3], kEnd));
  EXPECT_EQ(right->tokens_cut, 2U);
  const auto left = tokenizer_06b().encode(text, {.truncate = Truncate::kLeft, .max_tokens = 5});
  EXPECT_THAT(left->ids, ElementsAre(all[2], all[3], all[4], all[5], kEnd));
  EXPECT_EQ(left->tokens_cut, 2U);
  EXPECT_THAT(ids(tokenizer_06b(), text, {.truncate = Truncate::kRight, .max_tokens = 1}),
              ElementsAre(kEnd));
}

TEST(TokenizerTest, AMissingFileIsNotFound) {
  const Result<Tokenizer> missing = Tokenizer::load("no/such/tokenizer.json");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST(TokenizerTest, OneScratchServesTwoTokenizers) {
  EncodeScratch scratch;
  for (int round = 0; round < 3; ++round) {
    for (const Tokenizer* tokenizer : {&tokenizer_06b(), &tokenizer_4b()}) {
      EXPECT_EQ(tokenizer->encode("some words <think> again", {}, scratch)->ids,
                ids(*tokenizer, "some words <think> again"));
    }
  }
}

TEST(TokenizerTest, ThreadsShareOneTokenizer) {
  const auto expected = ids(tokenizer_06b(), "The quick brown fox, 中文 and e\xCC\x81.");
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      EncodeScratch scratch;
      for (int round = 0; round < 200; ++round) {
        const auto encoding =
            tokenizer_06b().encode("The quick brown fox, 中文 and e\xCC\x81.", {}, scratch);
        ASSERT_EQ(encoding->ids, expected);
      }
    });
  }
}

}  // namespace
}  // namespace tessera
