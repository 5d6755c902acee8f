#include <gmock/gmock.h>
#include <iconv.h>
#include <sys/stat.h>

#include <thread>

#include "clients/cli/io/byte_source.hpp"
#include "clients/cli/io/file_kind.hpp"
#include "tests/clients/cli/read_files.hpp"

namespace tessera::cli {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::string kWestern = "alpha one\nbeta two\ngr\xC3\xBC\xC3\x9F\n";
const std::string kCyrillic = "\xD0\xBF\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 \xD0\xBC\n";
const std::string kChinese = "\xE4\xB8\xAD\xE6\x96\x87\xE5\xAD\x97\n\xE4\xB8\xAD\xE4\xB8\xAD\n";

std::string to(const std::string& encoding, std::string text) {
  const iconv_t state = iconv_open(encoding.c_str(), "UTF-8");
  EXPECT_NE(state, reinterpret_cast<iconv_t>(-1)) << encoding;
  std::string out(text.size() * 4 + 16, '\0');
  char* in_at = text.data();
  char* out_at = out.data();
  std::size_t in_left = text.size();
  std::size_t out_left = out.size();
  EXPECT_EQ(iconv(state, &in_at, &in_left, &out_at, &out_left), 0U) << encoding;
  iconv_close(state);
  out.resize(out.size() - out_left);
  return out;
}

class Encodings : public ReadFiles {
 protected:
  std::string texts(const std::string& content, const ReadOptions& options = {}) {
    std::string all;
    for (const Record& record : read("a.txt", content, options)) {
      all += record.text + "\n";
    }
    return all;
  }
};

TEST_F(Encodings, AByteOrderMarkIsBelieved) {
  const std::string mark = "\xEF\xBB\xBF";
  for (const std::string& text : {kWestern, kCyrillic, kChinese}) {
    EXPECT_EQ(texts(mark + text), text);
    for (const char* encoding : {"UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"}) {
      EXPECT_EQ(texts(to(encoding, mark + text)), text) << encoding;
      EXPECT_THAT(description_, HasSubstr(std::string(encoding) + " by its byte order mark"));
    }
  }
}

TEST_F(Encodings, WithoutAMarkTheyAreNamedAndRefused) {
  for (const std::string& text : {kWestern, kCyrillic, std::string("a\n"), std::string("ab")}) {
    for (const std::string encoding : {"UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"}) {
      for (const char* name : {"a.txt", "a.csv", "a.jsonl"}) {
        EXPECT_THAT(refusal(name, to(encoding, text)), HasSubstr("looks like " + encoding +
                                                                 " without a byte order mark: say "
                                                                 "--encoding " +
                                                                 encoding))
            << text;
      }
      EXPECT_EQ(texts(to(encoding, text + "\n"), {.encoding = encoding}),
                text.ends_with("\n") ? text + "\n" : text + "\n");
    }
  }
  EXPECT_THAT(refusal("a.txt", to("UTF-16LE", kChinese)), HasSubstr("UTF-16LE"));
}

TEST_F(Encodings, OthersAreReadWhenStated) {
  for (const std::string encoding : {"latin1", "cp1252", "UTF-16LE", "utf-16be", "iso-8859-15"}) {
    EXPECT_EQ(texts(to(encoding, kWestern), {.encoding = encoding}), kWestern);
    EXPECT_THAT(description_, HasSubstr("; " + encoding));
  }
  EXPECT_EQ(texts(to("KOI8-R", kCyrillic), {.encoding = "koi8-r"}), kCyrillic);
  EXPECT_EQ(texts(to("GB18030", kChinese), {.encoding = "gb18030"}), kChinese);
  EXPECT_EQ(shown(read("a.csv", to("UTF-16BE", "id,text\n1,\xC3\xA9\n"), {.encoding = "UTF-16BE"})),
            "\"1\"=\xC3\xA9");
  EXPECT_THAT(refusal("a.txt", "x", {.encoding = "klingon"}), HasSubstr("is not known here"));
  EXPECT_THAT(refusal("a.txt", "x", {.encoding = "latin1//TRANSLIT"}), HasSubstr("not known"));
  // What is no text of the stated one.
  EXPECT_THAT(refusal("a.txt", std::string("a\0\0\xD8", 4), {.encoding = "UTF-16LE"}),
              HasSubstr("cannot be read as UTF-16LE: see its byte 2"));
  EXPECT_THAT(refusal("a.txt", std::string("a\0b", 3), {.encoding = "UTF-16LE"}),
              HasSubstr("see its byte 2"));
}

TEST_F(Encodings, BytesThatAreNoUtf8AreRefusedWithLineAndByte) {
  struct Case {
    std::string content;
    std::string words;
  };
  const std::vector<Case> cases = {
      {to("latin1", kWestern), "line 3 is not valid UTF-8 at byte 2 (0xFC)"},
      {"ok\nab\xFFz\n", "line 2 is not valid UTF-8 at byte 2 (0xFF)"},
      {"\xC3", "line 1 is not valid UTF-8 at byte 0 (0xC3)"},
      {"a\n\xED\xA0\x80\n", "line 2 is not valid UTF-8 at byte 0 (0xED)"},
      {std::string(5000, 'x') + "\n\xE9t\xE9\n", "line 2 is not valid UTF-8 at byte 0 (0xE9)"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(refusal("a.txt", c.content), HasSubstr(c.words));
    EXPECT_EQ(texts(c.content + "\n", {.encoding = "UTF-8"}).substr(0, 1), c.content.substr(0, 1));
  }
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": \"\xE9\"}\n"), HasSubstr("line 1 is not valid UTF-8"));
  EXPECT_EQ(
      shown(read("a.jsonl", "{\"text\": \"\xE9\"}\n{\"text\": \"b\"}\n", {.encoding = "utf8"})),
      "~=INVALID_UTF8|~=b");
}

TEST_F(Encodings, AFewNulsAreText) {
  const std::string one("a long enough line with one\0 in it\nand more text\n", 49);
  EXPECT_EQ(texts(one), one);
  const std::string separated("one\0two\0three\0four\0", 19);
  EXPECT_THAT(refusal("a.txt", separated), HasSubstr("has 4 NUL bytes"));
  EXPECT_EQ(texts(separated, {.encoding = "utf-8"}), separated + "\n");
}

TEST_F(Encodings, ACharacterCutByTheSampleIsNoFault) {
  const std::string text = "\xE4\xB8\xAD\xF0\x9F\x98\x80";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const bool whole_characters = cut == 0 || cut == 3 || cut == 7;
    EXPECT_EQ(sample_utf8_fault(text.substr(0, cut), false), std::string::npos) << cut;
    EXPECT_EQ(sample_utf8_fault(text.substr(0, cut), true) == std::string::npos, whole_characters);
  }
  EXPECT_EQ(sample_utf8_fault("abc\xE4\xFF", false), 3U);
  EXPECT_EQ(sample_utf8_fault("abc\x80\x80\x80\x80", false), 3U);
}

// Blocks of a pipe end anywhere: within a character, between CR and LF, within the mark.
TEST_F(Encodings, PipesInSmallPiecesGiveTheSame) {
  std::string text = "id,text\r\n";
  for (int i = 0; i < 400; ++i) {
    text += std::to_string(i) + ",\"gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80\r\n" + std::to_string(i) +
            "\"\r\n";
  }
  const std::string fifo = folder_ + "/pipe.csv";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const auto expected = shown(read("whole.csv", text));
  for (const std::string encoding : {"UTF-8", "UTF-16LE"}) {
    const std::string bytes = to(encoding, "\xEF\xBB\xBF" + text);
    std::jthread writer([&] {
      std::ofstream out(fifo, std::ios::binary);
      for (std::size_t at = 0; at < bytes.size(); at += 7) {
        out << bytes.substr(at, 7) << std::flush;
      }
    });
    const auto reader = open_readers({fifo}, {}, no_stop_);
    std::vector<Record> records;
    for (Record record; reader->next(record);) {
      records.push_back(record);
    }
    EXPECT_EQ(shown(records), expected) << encoding;
    EXPECT_EQ(reader->bytes_read(), bytes.size());
  }
}

}  // namespace
}  // namespace tessera::cli
