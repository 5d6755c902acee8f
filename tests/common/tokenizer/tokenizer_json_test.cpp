#include "common/tokenizer/json/tokenizer_json.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/tokenizer/tokenizer.hpp"
#include "tests/common/tokenizer/model_files.hpp"
#include "tests/common/tokenizer/tiny_tokenizer.hpp"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(TokenizerJsonTest, ReadsTheTinyFile) {
  const auto tokenizer = Tokenizer::parse(tiny_tokenizer_json());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocab_size(), 262);
  EXPECT_THAT(tokenizer->encode("abcab bc a<|end|><|e")->ids,
              ElementsAre(257, 256, 32, 259, 258, 260, 261, 260));
  EXPECT_TRUE(tokenizer->self_test().ok());
}

TEST(TokenizerJsonTest, RefusesByName) {
  const std::string good = tiny_tokenizer_json();
  struct Case {
    const char* from;
    const char* to;
    const char* named;
  };
  const Case cases[] = {
      {R"("version":"1.0")", R"("version":"2.0")", "version"},
      {R"("truncation":null)", R"("truncation":{"max_length":1})", "truncation.max_length"},
      {R"("truncation":null)", R"("truncation":{"max_length":-5})", "truncation.max_length"},
      {R"("truncation":null)", R"("truncation":{"max_length":5,"left":1})", "left"},
      {R"("truncation":null)", R"("truncation":{})", "max_length"},
      {R"("truncation":null)", R"("truncation":5)", "truncation"},
      {R"("padding":null)", R"("padding":5)", "padding"},
      {R"({"type":"NFC"})", R"({"type":"NFKC"})", "NFKC"},
      {R"({"type":"NFC"})", R"("NFC")", "normalizer"},
      {R"("type":"Split")", R"("type":"Whitespace")", "Whitespace"},
      {R"(|\\s+(?!\\S))", R"()", "Regex"},
      {R"("behavior":"Isolated")", R"("behavior":"Removed")", "Removed"},
      {R"("invert":false)", R"("invert":true)", "invert"},
      {R"("add_prefix_space":false)", R"("add_prefix_space":true)", "add_prefix_space"},
      {R"("use_regex":false)", R"("use_regex":true)", "use_regex"},
      {R"("type":"BPE")", R"("type":"WordPiece")", "WordPiece"},
      {R"("dropout":null)", R"("dropout":0.1)", "dropout"},
      {R"("unk_token":null)", R"("unk_token":"a")", "unk_token"},
      {R"("continuing_subword_prefix":"")", R"("continuing_subword_prefix":"##")",
       "subword_prefix"},
      {R"("byte_fallback":false)", R"("byte_fallback":true)", "byte_fallback"},
      {R"("ignore_merges":false)", R"("ignore_merges":true)", "ignore_merges"},
      {R"("ignore_merges":false)", R"("surprise":false)", "surprise"},
      {R"("single_word":false)", R"("single_word":true)", "added_tokens[0].single_word"},
      {R"("lstrip":false)", R"("lstrip":true)", "added_tokens[0].lstrip"},
      {R"("rstrip":false)", R"("rstrip":true)", "added_tokens[0].rstrip"},
      {R"("normalized":false)", R"("normalized":true)", "added_tokens[0].normalized"},
      {R"("content":"<|e")", R"("content":"<|end|>")", "twice"},
      {R"("content":"<|e")", R"("content":"")", "empty"},
      {R"({"id":260,"content")", R"({"id":259,"content")", "added_tokens[0].id"},
      {R"("abc":257)", R"("abc":256)", "twice"},
      {R"("abc":257)", R"("abc":-1)", "abc"},
      {R"("abc":257)", R"("abc":4000000000)", "abc"},
      {R"("abc":257)", R"("a c":257)", "alphabet"},
      {R"("ab":256,)", R"()", "merges[0]"},
      {R"(["a","b"])", R"(["a"])", "merges[0]"},
      {R"(["a","b"])", R"("a b c")", "merges[0]"},
      {R"(["b","c"])", R"(["a","b"])", "merges[3]"},
      {R"("Ġ a")", R"(7)", "merges[2]"},
      {R"("type":"TemplateProcessing")", R"("type":"BertProcessing")", "BertProcessing"},
      {R"({"Sequence":{"id":"A",)", R"({"Sequence":{"id":"B",)", "sequence A"},
      {R"("ids":[260])", R"("ids":[300])", "300"},
      {R"("ids":[260])", R"("ids":"x")", "ids"},
      {R"("model":{)", R"("model":[{)", "JSON"},
  };
  for (const Case& one : cases) {
    const std::string changed = replaced(good, one.from, one.to);
    ASSERT_FALSE(changed.empty()) << one.from;
    const auto tokenizer = Tokenizer::parse(changed);
    ASSERT_FALSE(tokenizer.ok()) << one.to;
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(tokenizer.error().message, HasSubstr(one.named));
  }
}

// What training leaves behind changes no ids; the length is told to whoever limits texts.
TEST(TokenizerJsonTest, PaddingAndTruncationChangeNoIds) {
  const std::string good = tiny_tokenizer_json();
  const auto plain = Tokenizer::parse(good);
  EXPECT_EQ(plain->truncation_length(), 0U);
  const auto left = Tokenizer::parse(replaced(
      replaced(good, R"("truncation":null)",
               R"("truncation":{"direction":"Left","max_length":5,"strategy":"LongestFirst",)"
               R"("stride":0})"),
      R"("padding":null)", R"("padding":{"strategy":{"Fixed":8},"pad_id":1})"));
  ASSERT_TRUE(left.ok()) << left.error().message;
  EXPECT_EQ(left->truncation_length(), 5U);
  EXPECT_EQ(left->encode("abc abc abc")->ids, plain->encode("abc abc abc")->ids);
  EXPECT_EQ(plain->added_token("<|end|>"), 260);
  EXPECT_EQ(plain->added_token("abc"), std::nullopt) << "in the vocabulary, but not looked for";
}

TEST(TokenizerJsonTest, AChatModelsFileLoadsAndFailsTheSelfTest) {
  const std::string json = tiny_tokenizer_json();
  const std::size_t begin = json.find(R"({"type":"TemplateProcessing")");
  const std::size_t end = json.find(R"(,"decoder")");
  const auto tokenizer = Tokenizer::parse(
      json.substr(0, begin) +
      R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":false})" +
      json.substr(end));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_THAT(tokenizer->encode("ab")->ids, ElementsAre(256));
  EXPECT_FALSE(tokenizer->self_test().ok());
}

// Whatever one byte becomes: an error or a tokenizer that works, never a crash.
TEST(TokenizerJsonTest, EachByteChanged) {
  const std::string good = tiny_tokenizer_json();
  std::size_t loaded = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char change : {'\x01', '\x10', '\x80'}) {
      std::string changed = good;
      changed[i] = static_cast<char>(changed[i] ^ change);
      const auto spec = tokenizer::parse_tokenizer_json(changed);
      loaded += spec.ok() ? 1 : 0;
      if (spec.ok() && i % 16 == 0) {
        const auto tokenizer = Tokenizer::parse(changed);
        EXPECT_TRUE(!tokenizer.ok() || tokenizer->encode("abcab <|end|> bc").ok());
      }
    }
  }
  EXPECT_GT(loaded, 0U);           // Such as another name of a key inside "pair".
  EXPECT_LT(loaded, good.size());  // Most are refused.
}

TEST(TokenizerJsonTest, EachPrefixIsRefused) {
  const std::string good = tiny_tokenizer_json();
  for (std::size_t size = 0; size < good.size(); size += 7) {
    EXPECT_FALSE(tokenizer::parse_tokenizer_json(good.substr(0, size)).ok());
  }
}

TEST(TokenizerJsonTest, TheGenuineFilesHaveTheirPublishedHashes) {
  const auto first_bytes = [](const Tokenizer& tokenizer) {
    const auto& hash = tokenizer.file_hash();
    return std::uint32_t{hash[0]} << 24U | std::uint32_t{hash[1]} << 16U |
           std::uint32_t{hash[2]} << 8U | hash[3];
  };
  EXPECT_EQ(first_bytes(tokenizer_06b()), 0xDEF76FB0U);
  EXPECT_EQ(first_bytes(tokenizer_4b()), 0x83CDF8C3U);
}

}  // namespace
}  // namespace tessera
