#include "clients/cli/io/readers.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/check.hpp"
#include "common/protocol.hpp"

namespace tessera::cli {
namespace {

const std::atomic<bool> kNoStop{false};

class ReadersTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "readers_test_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::vector<Record> read(const std::string& name, const std::string& content,
                           ReadOptions options = {}) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    const auto reader = open_reader(path, options, kNoStop);
    std::vector<Record> records;
    for (Record record; reader->next(record);) {
      records.push_back(record);
    }
    EXPECT_EQ(reader->bytes_read(), content.size());
    return records;
  }

  std::string folder_;
};

TEST_F(ReadersTest, TextLines) {
  const auto records = read("a.txt", "\xEF\xBB\xBFone\r\n\ntwo \xFF\nlast");
  ASSERT_EQ(records.size(), 4U);
  EXPECT_EQ(records[0].text, "one");
  EXPECT_EQ(records[1].text, "");
  EXPECT_EQ(records[2].text, "two \xFF");  // Judged by the coordinator.
  EXPECT_EQ(records[3].text, "last");
}

TEST_F(ReadersTest, EmptyFiles) {
  for (const char* name : {"a.txt", "a.jsonl", "a.csv"}) {
    EXPECT_TRUE(read(name, "").empty()) << name;
  }
}

TEST_F(ReadersTest, TextAboveTheLimitIsAnErrorInItsPlace) {
  const std::string big(protocol::kTextBytesMax + 1, 'x');
  const auto records = read("a.txt", "one\n" + big + "\ntwo\n");
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[1].error.code, ErrorCode::kTooLong);
  EXPECT_EQ(records[2].text, "two");
}

TEST_F(ReadersTest, JsonLines) {
  const auto records = read("a.jsonl",
                            "{\"id\": \"a\", \"text\": \"one\"}\n"
                            "\n"
                            "{\"_id\": 7, \"text\": \"\\u00e9\\ud83d\\ude00\"}\r\n"
                            "{\"ids\": [1, 2, -3]}\n"
                            "{\"text\": \"nul \\u0000 inside\"}");
  ASSERT_EQ(records.size(), 4U);
  EXPECT_EQ(records[0].id, "a");
  EXPECT_EQ(records[0].text, "one");
  EXPECT_EQ(records[1].id, "7");
  EXPECT_EQ(records[1].text, "\xC3\xA9\xF0\x9F\x98\x80");
  EXPECT_TRUE(records[2].is_ids);
  EXPECT_EQ(records[2].ids, (std::vector<std::int32_t>{1, 2, -3}));
  EXPECT_EQ(records[3].text, std::string("nul \0 inside", 12));
}

TEST_F(ReadersTest, BrokenJsonLinesAreErrorsInTheirPlace) {
  struct Case {
    std::string line;
    ErrorCode code;
  };
  const std::vector<Case> cases = {
      {"{\"text\": \"a\xFF\"}", ErrorCode::kInvalidUtf8},
      {"{\"text\": \"\\ud800\"}", ErrorCode::kInvalidUtf8},
      {"{\"text\": \"\\udc00x\"}", ErrorCode::kInvalidUtf8},
      {"{\"text\": null}", ErrorCode::kInvalidArgument},
      {"{\"text\": 5}", ErrorCode::kInvalidArgument},
      {"{\"texts\": \"a\"}", ErrorCode::kInvalidArgument},
      {"{\"text\": \"a\"", ErrorCode::kInvalidArgument},
      {"{\"text\": \"a\"} {}", ErrorCode::kInvalidArgument},
      {std::string("{\"text\": \"a\0b\"}", 15), ErrorCode::kInvalidArgument},
      {"[1]", ErrorCode::kInvalidArgument},
      {"\"a\"", ErrorCode::kInvalidArgument},
      {std::string(100'000, '['), ErrorCode::kInvalidArgument},
      {"{\"ids\": [1.5]}", ErrorCode::kInvalidTokenId},
      {"{\"ids\": [\"1\"]}", ErrorCode::kInvalidTokenId},
      {"{\"ids\": [4294967296]}", ErrorCode::kInvalidTokenId},
      {"{\"ids\": [-99999999999]}", ErrorCode::kInvalidTokenId},
      {"{\"ids\": 5}", ErrorCode::kInvalidArgument},
  };
  std::string file;
  for (const Case& c : cases) {
    file += c.line + "\n{\"text\": \"good\"}\n";
  }
  const auto records = read("a.jsonl", file);
  ASSERT_EQ(records.size(), 2 * cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(records[2 * i].error.code, cases[i].code) << cases[i].line.substr(0, 60);
    EXPECT_FALSE(records[2 * i].error.message.empty());
    EXPECT_EQ(records[2 * i + 1].text, "good");
  }
}

TEST_F(ReadersTest, JsonFieldsByName) {
  const auto records = read("a.jsonl", "{\"key\": \"k\", \"body\": \"b\"}\n{\"body\": \"b\"}\n",
                            {.field = "body", .id_field = "key"});
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].id, "k");
  EXPECT_EQ(records[0].text, "b");
  EXPECT_EQ(records[1].error.code, ErrorCode::kInvalidArgument);
}

TEST_F(ReadersTest, CsvOfTheRfc) {
  const auto records = read("a.csv",
                            "\xEF\xBB\xBFid,text,other\r\n"
                            "1,plain,x\r\n"
                            "2,\"with, comma and \"\"quotes\"\"\",x\r\n"
                            "3,\"two\r\nlines\",x\n"
                            "4,,x\n"
                            "5,in\"side,\"x\"");
  ASSERT_EQ(records.size(), 5U);
  EXPECT_EQ(records[0].id, "1");
  EXPECT_EQ(records[0].text, "plain");
  EXPECT_EQ(records[1].text, "with, comma and \"quotes\"");
  EXPECT_EQ(records[2].text, "two\r\nlines");
  EXPECT_EQ(records[3].text, "");
  EXPECT_EQ(records[4].text, "in\"side");
}

TEST_F(ReadersTest, BrokenCsvRowsAreErrorsInTheirPlace) {
  const auto records = read("a.csv", "id,text\n1\n2,two,three\n3,good\n4,\"never closed\n5,x\n");
  ASSERT_EQ(records.size(), 4U);
  EXPECT_EQ(records[0].error.code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(records[1].error.code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(records[2].text, "good");
  EXPECT_EQ(records[3].error.code, ErrorCode::kInvalidArgument);
}

TEST_F(ReadersTest, CsvWithOneColumnNeedsNoName) {
  const auto records = read("a.csv", "anything\none\n\"\"\n");
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].text, "one");
  EXPECT_EQ(records[1].text, "");
}

TEST_F(ReadersTest, TabSeparated) {
  const auto records = read("a.tsv", "id\ttext\n1\ta, b\n");
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].text, "a, b");
}

TEST_F(ReadersTest, RefusesWhatItCannotRead) {
  EXPECT_THROW(open_reader(folder_ + "/none.txt", {}, kNoStop), FatalError);
  EXPECT_THROW(read("a.parquet", "x"), FatalError);
  EXPECT_THROW(read("a.csv", "id,body\n1,x\n"), FatalError);
  EXPECT_THROW(read("b.csv", "id,text\n1,x\n", {.id_field = "key"}), FatalError);
}

TEST_F(ReadersTest, SeveralFilesAreOneInput) {
  std::ofstream(folder_ + "/a.txt") << "one\ntwo";
  std::ofstream(folder_ + "/b.jsonl") << "{\"text\": \"three\"}\n";
  const auto reader = open_readers({folder_ + "/a.txt", folder_ + "/b.jsonl"}, {}, kNoStop);
  std::string all;
  for (Record record; reader->next(record);) {
    all += record.text + ";";
  }
  EXPECT_EQ(all, "one;two;three;");
  EXPECT_EQ(reader->bytes_read(), 7U + 18U);
}

}  // namespace
}  // namespace tessera::cli
