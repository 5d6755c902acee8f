#include "common/wire/codec_origin.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "common/wire/codec.hpp"

namespace tessera::protocol {
namespace {

using namespace std::string_literals;

Origin origin_of(std::string_view header) { return read_origin(std::as_bytes(std::span(header))); }

// [1, type, map of `fields`]: `body` has their keys and values.
std::string header(int type, int fields, const std::string& body) {
  return "\x93\x01"s + static_cast<char>(type) + static_cast<char>(0x80 + fields) + body;
}

constexpr int kEmbed = 4;
constexpr int kOpen = 5;
constexpr int kChunk = 6;

TEST(Origin, IsFoundWhateverElseIsWrong) {
  struct Case {
    const char* what;
    std::string header;
  };
  const Case cases[] = {
      {"a field of a wrong type", header(kEmbed, 2, "\x01\x2a\x02\xc0")},
      {"a wrong type in front", header(kEmbed, 2, "\x02\xc0\x01\x2a")},
      {"a nested one", header(kOpen, 2, "\x02\x81\x04\xcb\x40\x50\0\0\0\0\0\0\x01\x2a"s)},
      {"a negative number in front", header(kEmbed, 2, "\x03\xff\x01\x2a")},
      {"cut off behind", header(kEmbed, 3, "\x01\x2a\x02\x85")},
      {"a length that is not there", header(kEmbed, 2, "\x01\x2a\x02\xc6\xff\xff\xff\xff")},
      {"text and extensions in front",
       header(kEmbed, 4, "\x02\xd9\x02hi\x03\xd4\x01\x02\x05\xc7\x01\x09\x07\x01\x2a")},
      {"keys that are no numbers", header(kEmbed, 2, "\xa1k\x92\x01\x02\x01\x2a")},
      {"a wide number", header(kEmbed, 1, "\x01\xcf\0\0\0\0\0\0\0\x2a"s)},
      {"a signed wide number", header(kEmbed, 1, "\x01\xd3\0\0\0\0\0\0\0\x2a"s)},
      {"a newer version's message", header(120, 1, "\x01\x2a")},
      {"bytes behind", header(kEmbed, 1, "\x01\x2a") + "\xc1\xc1"},
      {"a map that counts too many", "\x93\x01\x04\xdf\xff\xff\xff\xff\x01\x2a"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(origin_of(c.header).request_id, 42U) << c.what;
    EXPECT_TRUE(origin_of(c.header).job_id.empty()) << c.what;
  }
}

TEST(Origin, OfAChunkIsItsJobAndNumber) {
  const auto good = header(kChunk, 3, "\x02\x07\x01\xa2j1\x03\xc0");
  EXPECT_EQ(origin_of(good).job_id, "j1");
  EXPECT_EQ(origin_of(good).chunk, 7U);
  EXPECT_EQ(origin_of(good).request_id, 0U);
  const std::string unusable[] = {
      header(kChunk, 2, "\x01\xa2j1\x03\xc0"),                                // no number
      header(kChunk, 2, "\x02\x07\x03\xc0"),                                  // no job
      header(kChunk, 2, "\x01\xa2j1\x02\xcf\0\0\0\1\0\0\0\0"s),               // beyond 32 bits
      header(kChunk, 2, "\x02\x07\x01\xda\x01\x01" + std::string(257, 'j')),  // a long job id
      header(kChunk, 2, "\x02\x07\x01\x2a"),  // a job id of another type
  };
  for (const std::string& each : unusable) {
    EXPECT_TRUE(origin_of(each).job_id.empty());
    EXPECT_EQ(origin_of(each).request_id, 0U);
  }
}

TEST(Origin, IsNothingWhereThereIsNone) {
  const std::string none[] = {
      "",
      "\x93",
      "\xc1",
      "\x93\x01\x04\x01",                                     // no map
      "\x92\x01\x04",                                         // not three
      "\x93\x02\x04\x81\x01\x2a",                             // of another version
      "\x93\xa1x\x04\x81\x01\x2a",                            // of none
      header(kEmbed, 1, "\x01\xff"),                          // negative
      header(kEmbed, 1, "\x01\xcb\x40\x45\0\0\0\0\0\0"s),     // 42.0
      header(kEmbed, 1, "\x01\xa2\x34\x32"),                  // "42"
      header(3, 1, "\x01\x2a"),                               // ClientHello: field 1 is a version
      header(0, 1, "\x01\x2a"),                               // Ping: a nonce
      header(kEmbed, 2, "\x02\xdd\xff\xff\xff\xff\x01\x2a"),  // swallowed by a list
      header(kEmbed, 2, "\x02\xc1\x01\x2a"),                  // behind what is no msgpack
  };
  for (const std::string& each : none) {
    EXPECT_EQ(origin_of(each).request_id, 0U) << testing::PrintToString(each);
  }
}

TEST(Origin, IsThatOfTheMessageWhereverOneIsDamagedBehindIt) {
  const Frames frames = encode(
      OpenJob{.request_id = 1ULL << 40, .job_key = "key", .spec = {.model = "m"}, .priority = 3});
  const std::size_t id_ends = 3 + 1 + 1 + 9;  // Array and two numbers, map, key, number.
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    Bytes damaged = frames.header;
    for (std::size_t n = 0; n < 1 + random() % 4; ++n) {
      damaged[id_ends + random() % (damaged.size() - id_ends)] = static_cast<std::byte>(random());
    }
    damaged.resize(id_ends + random() % (damaged.size() - id_ends + 1));
    EXPECT_EQ(read_origin(damaged).request_id, 1ULL << 40);
  }
}

TEST(Origin, LooksAtNoMoreThanAHeader) {
  std::string deep(4U << 20U, '\x91');
  EXPECT_EQ(origin_of(deep).request_id, 0U);
  EXPECT_EQ(origin_of(header(kEmbed, 2, "\x02" + deep)).request_id, 0U);
  std::string late = header(kEmbed, 2, "\x02\xc6\0\x20\0\0"s) + std::string(2U << 20U, 'x');
  EXPECT_EQ(origin_of(late + "\x01\x2a").request_id, 0U);
}

}  // namespace
}  // namespace tessera::protocol
