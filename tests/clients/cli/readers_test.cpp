#include <gmock/gmock.h>

#include "common/wire/protocol.hpp"
#include "tests/clients/cli/read_files.hpp"

namespace tessera::cli {
namespace {

using testing::HasSubstr;
using ReadersTest = ReadFiles;

TEST_F(ReadersTest, TextLines) {
  const auto records = read("a.txt", "\xEF\xBB\xBFone\r\n\ntwo \xFF\nlast", {.encoding = "utf-8"});
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
  EXPECT_EQ(records[0].id.text, "a");
  EXPECT_EQ(records[0].text, "one");
  EXPECT_EQ(records[1].id.text, "7");
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
  const auto records = read("a.jsonl", file, {.encoding = "utf-8"});
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
  EXPECT_EQ(records[0].id.text, "k");
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
  EXPECT_EQ(records[0].id.text, "1");
  EXPECT_EQ(records[0].text, "plain");
  EXPECT_EQ(records[1].text, "with, comma and \"quotes\"");
  EXPECT_EQ(records[2].text, "two\r\nlines");
  EXPECT_EQ(records[3].text, "");
  EXPECT_EQ(records[4].text, "in\"side");
}

TEST_F(ReadersTest, BrokenCsvRowsAreErrorsInTheirPlace) {
  const auto records =
      read("a.csv",
           "id,text\n1\n2,two,three\n3,good\n4,\"a\nb\" c\n5,good\n6,\"never closed\n7,x\n8,y\n",
           {.quote_given = true, .quote = '"'});
  struct Case {
    std::uint64_t line;
    std::string words;
  };
  const std::vector<Case> cases = {{2, "1 fields, the header 2"},
                                   {3, "3 fields"},
                                   {4, ""},
                                   {5, "lines 5 to 6: something follows a closing quote"},
                                   {7, ""},
                                   {8, "opens in line 8 and is never closed: lines 8 to 10"}};
  ASSERT_EQ(records.size(), cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(records[i].place.line, cases[i].line);
    EXPECT_EQ(records[i].error.code == ErrorCode::kOk, cases[i].words.empty());
    EXPECT_THAT(records[i].error.message, HasSubstr(cases[i].words));
  }
}

// Beyond the start of a file, which is judged, a fault is one of its record.
TEST_F(ReadersTest, AnOpenQuoteFarBehindIsAnErrorWithItsLines) {
  std::string content = "id,text\n";
  int rows = 0;
  while (content.size() < (2U << 20)) {
    content += std::to_string(rows++) + ",a text of some length\n";
  }
  const auto records = read("a.csv", content + "x,\"open\ny,z\n");
  ASSERT_EQ(records.size(), static_cast<std::size_t>(rows) + 1);
  EXPECT_THAT(
      records.back().error.message,
      HasSubstr("opens in line " + std::to_string(rows + 2) + " and is never closed: lines " +
                std::to_string(rows + 2) + " to " + std::to_string(rows + 3)));
}

TEST_F(ReadersTest, VeryLongRowsAndLinesAreErrorsInTheirPlace) {
  const std::string big(kRecordBytesMax + 1, 'x');
  const ReadOptions quoted{.quote_given = true, .quote = '"'};
  for (const auto& [name, content] :
       {std::pair<std::string, std::string>{"a.csv", "text\na\n" + big + "\nb\n"},
        {"b.csv", "text\na\n\"" + big + "\"\nb\n"},
        {"a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"" + big + "\"}\n{\"text\":\"b\"}\n"}}) {
    EXPECT_EQ(shown(read(name, content, name == "a.jsonl" ? ReadOptions{} : quoted)),
              "~=a|~=TOO_LONG|~=b")
        << name;
  }
}

TEST_F(ReadersTest, TabSeparated) {
  const auto records = read("a.tsv", "id\ttext\n1\ta, b\n");
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].text, "a, b");
}

// Byte for byte, whatever their type; what has none has none.
TEST_F(ReadersTest, IdsStayAsTheyWereWritten) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("id":"0",)", R"("0")"},
      {R"("id":2,)", "2"},
      {R"("id":-0,)", "-0"},
      {R"("id":1.0,)", "1.0"},
      {R"("id":1E5,)", "1E5"},
      {R"("id":12345678901234567890123,)", "12345678901234567890123"},
      {R"("id":-9223372036854775809,)", "-9223372036854775809"},
      {R"("id":0.1000000000000000055511151231257827,)", "0.1000000000000000055511151231257827"},
      {R"("id":true,)", "true"},
      {R"("id" : {"a": 1, "b":[1, "}"]} ,)", R"({"a": 1, "b":[1, "}"]})"},
      {R"("id":[ ],)", "[ ]"},
      {R"("id":"",)", R"("")"},
      {R"("id":null,)", "null"},
      {"", "null"},
      {R"("_id":7,)", "7"},
      {R"("_id":7,"id":8,)", "8"},
      {R"("id":8,"_id":"7",)", "8"},
      {R"("i\u0064":9,)", "9"},
      {R"("id":"\u00e9\"\\",)", "\"\xC3\xA9\\\"\\\\\""},
      {R"("a":"\\\"id\":","x":{"id":1},"id":3,)", "3"},
  };
  std::string content;
  for (const auto& [member, id] : cases) {
    content.append("{").append(member).append("\"text\":\"t\"}\n{\"text\":\"t\"");
    content.append(member.empty() ? "" : ",")
        .append(member.substr(0, member.rfind(',')))
        .append("}\n");
  }
  const auto records = read("a.jsonl", content);
  ASSERT_EQ(records.size(), 2 * cases.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].id.as_json(), cases[i / 2].second) << cases[i / 2].first;
    EXPECT_EQ(records[i].text, "t") << cases[i / 2].first;
  }
}

TEST_F(ReadersTest, WhatOccursTwiceInAnObjectIsAnError) {
  for (const char* line : {R"({"text":"a","text":"b"})", R"({"id":1,"id":2,"text":"a"})",
                           R"({"ids":[1],"ids":[2]})", R"({"text":"a","te\u0078t":"b"})"}) {
    const auto records = read("a.jsonl", std::string(line) + "\n{\"text\":\"c\"}\n");
    EXPECT_THAT(records[0].error.message, HasSubstr("twice")) << line;
    EXPECT_EQ(records[1].text, "c");
  }
  EXPECT_EQ(read("b.jsonl", R"({"x":1,"x":2,"text":"a"})")[0].text, "a");
}

TEST_F(ReadersTest, AnIdBehindNumberedItemsEndsTheReading) {
  std::string content;
  for (int i = 0; i < 200; ++i) {
    content += "{\"text\":\"t\"}\n";
  }
  EXPECT_THAT(refusal("a.jsonl", content + "{\"id\":\"5\",\"text\":\"t\"}\n"),
              HasSubstr("a.jsonl, line 201: this item has an id"));
  EXPECT_EQ(read("a.jsonl", content + "{\"id\":5,\"text\":\"t\"}\n", {.no_ids = true}).size(),
            201U);
}

TEST_F(ReadersTest, PlacesAreFileAndLine) {
  const std::string first = write("a.jsonl", "\n{\"text\":\"a\"}\n\n\nbroken\n");
  const std::string second = write("b.csv", "text\n\n\"x\ny\"\nz\n");
  const auto reader = open_readers({first, second}, {}, no_stop_);
  std::string places;
  for (Record record; reader->next(record);) {
    places += std::to_string(record.place.file) + ":" + std::to_string(record.place.line) + " ";
  }
  EXPECT_EQ(places, "0:2 0:5 1:3 1:5 ");
}

TEST_F(ReadersTest, SeveralFilesAreOneInput) {
  std::ofstream(folder_ + "/a.txt") << "one\ntwo";
  std::ofstream(folder_ + "/b.jsonl") << "{\"text\": \"three\"}\n";
  const auto reader = open_readers({folder_ + "/a.txt", folder_ + "/b.jsonl"}, {}, no_stop_);
  std::string all;
  for (Record record; reader->next(record);) {
    all += record.text + ";";
  }
  EXPECT_EQ(all, "one;two;three;");
  EXPECT_EQ(reader->bytes_read(), 7U + 18U);
}

}  // namespace
}  // namespace tessera::cli
