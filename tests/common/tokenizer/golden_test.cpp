// The 2,000 golden strings: ids of the reference, kept so that no network oracle is needed.
#include <gtest/gtest.h>
#include <simdjson.h>

#include <fstream>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.hpp"
#include "tests/common/tokenizer/model_files.hpp"

namespace tessera {
namespace {

std::vector<std::string> read_lines(const std::string& name) {
  std::ifstream file("tests/data/tokenizer/" + name);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(line);
  }
  return lines;
}

std::string as_json(const std::vector<std::int32_t>& ids) {
  std::string text = "[";
  for (const std::int32_t id : ids) {
    text.append(text.size() > 1 ? "," : "").append(std::to_string(id));
  }
  return text.append("]");
}

void expect_golden(const Tokenizer& tokenizer, const std::string& ids_name) {
  const std::vector<std::string> strings = read_lines("golden_strings.jsonl");
  const std::vector<std::string> expected = read_lines(ids_name);
  ASSERT_EQ(strings.size(), 2000U);
  ASSERT_EQ(expected.size(), strings.size());
  simdjson::dom::parser parser;
  EncodeScratch scratch;
  for (std::size_t i = 0; i < strings.size(); ++i) {
    const std::string_view text = parser.parse(strings[i]).get_string().value();
    const Result<Encoding> encoding = tokenizer.encode(text, {}, scratch);
    ASSERT_TRUE(encoding.ok()) << strings[i];
    EXPECT_EQ(as_json(encoding->ids), expected[i]) << strings[i];
  }
}

TEST(GoldenTest, Qwen3Embedding06B) { expect_golden(tokenizer_06b(), "golden_ids_06b.jsonl"); }

TEST(GoldenTest, Qwen3Embedding4BAnd8B) { expect_golden(tokenizer_4b(), "golden_ids_4b.jsonl"); }

TEST(GoldenTest, DemoModel) {
  expect_golden(Tokenizer::load(tokenizer_file_demo()).value(), "golden_ids_demo.jsonl");
}

}  // namespace
}  // namespace tessera
