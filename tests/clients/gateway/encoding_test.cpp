#include <gtest/gtest.h>
#include <sodium.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "clients/gateway/encoding/base64.hpp"
#include "clients/gateway/encoding/decimal.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "clients/gateway/encoding/quantise.hpp"

namespace tessera::gateway {
namespace {

std::vector<float> random_unit(std::size_t width, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(width);
  float squares = 0;
  for (float& value : row) {
    value = normal(random);
    squares += value * value;
  }
  for (float& value : row) {
    value /= std::sqrt(squares);
  }
  return row;
}

TEST(Base64, IsThatOfLibsodiumAtEveryLength) {
  std::mt19937 random(1);
  for (std::size_t length = 0; length < 200; ++length) {
    std::vector<std::byte> bytes(length);
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(random());
    }
    std::string expected(sodium_base64_ENCODED_LEN(length, sodium_base64_VARIANT_ORIGINAL), '\0');
    sodium_bin2base64(expected.data(), expected.size(),
                      reinterpret_cast<const unsigned char*>(bytes.data()), length,
                      sodium_base64_VARIANT_ORIGINAL);
    expected.pop_back();
    std::string got = "before ";
    append_base64(bytes, got);
    EXPECT_EQ(got, "before " + expected) << length;
    EXPECT_EQ(base64_length(length), expected.size());
  }
}

TEST(Decimal, EveryFloatReadsBackAsItself) {
  std::mt19937 random(2);
  std::vector<float> values{0.0F,
                            -0.0F,
                            1.0F,
                            -1.17549435e-38F,
                            std::numeric_limits<float>::denorm_min(),
                            std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::lowest()};
  while (values.size() < 20'000) {
    float value = 0;
    const auto bits = static_cast<std::uint32_t>(random());
    std::memcpy(&value, &bits, sizeof(value));
    if (std::isfinite(value)) {
      values.push_back(value);
    }
  }
  std::string text;
  append_decimals(values, text);
  const char* at = text.data();
  const char* const end = at + text.size();
  for (std::size_t i = 0; i < values.size(); ++i) {
    float got = 0;
    const auto [next, error] = std::from_chars(at, end, got);
    ASSERT_EQ(error, std::errc());
    EXPECT_EQ(std::memcmp(&got, &values[i], sizeof(got)), 0) << values[i];
    ASSERT_TRUE(next == end || *next == ',');
    at = next == end ? end : next + 1;
  }
  EXPECT_EQ(at, end);
}

TEST(Decimal, IntegersOfAllWidths) {
  std::string text;
  append_integers(std::vector<std::int8_t>{-128, -1, 0, 127}, text);
  text += ' ';
  append_integers(std::vector<std::uint8_t>{0, 9, 10, 255}, text);
  text += ' ';
  append_integer(std::numeric_limits<std::uint64_t>::max(), text);
  EXPECT_EQ(text, "-128,-1,0,127 0,9,10,255 18446744073709551615");
}

TEST(JsonText, EscapesWhatJsonDoesNotTake) {
  struct Case {
    std::string_view text;
    const char* json;
  };
  const Case cases[] = {
      {"", "\"\""},
      {"plain \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80",
       "\"plain \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\""},
      {"\"\\\n\r\t", R"("\"\\\n\r\t")"},
      {std::string_view("\0\x1F\x7F", 3), R"("\u0000\u001f\u007f")"},
      {"a\xFF"
       "b",
       "\"a\xEF\xBF\xBD"
       "b\""},
      {"\xC3", "\"\xEF\xBF\xBD\""},
      {"\xE0\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},  // Overlong.
      {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},  // A surrogate.
      {"\xF4\x90\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}};
  for (const Case& c : cases) {
    EXPECT_EQ(json_string(c.text), c.json);
  }
}

TEST(Quantise, NamesGoBothWays) {
  for (const char* name : {"float", "float16", "int8", "uint8", "binary", "ubinary"}) {
    ASSERT_TRUE(dtype_named(name)) << name;
    EXPECT_EQ(to_string(*dtype_named(name)), name);
  }
  EXPECT_FALSE(dtype_named("int4"));
}

TEST(Quantise, TheScaleDependsOnTheWidthAlone) {
  for (const std::size_t width : {32U, 256U, 1000U, 1024U, 4096U}) {
    const float scale = 16 * std::sqrt(static_cast<float>(width));
    std::vector<float> row(width, 0);
    row[0] = 1;
    row[1] = -1;
    row[2] = 2.6F / scale;
    row[3] = -2.4F / scale;
    std::vector<std::int8_t> ints;
    append_int8(row, ints);
    EXPECT_EQ(ints.size(), width);
    EXPECT_EQ(ints[0], std::min(127, static_cast<int>(std::lrint(scale))));
    EXPECT_EQ(ints[1], -ints[0]);
    EXPECT_EQ(ints[2], 3);
    EXPECT_EQ(ints[3], -2);
    EXPECT_EQ(ints[4], 0);
    std::vector<std::uint8_t> unsigned_ones;
    append_uint8(row, unsigned_ones);
    for (std::size_t i = 0; i < width; ++i) {
      ASSERT_EQ(unsigned_ones[i], ints[i] + 128);
    }
  }
}

TEST(Quantise, CosinesOfInt8AreThoseOfFloats) {
  for (const std::size_t width : {64U, 256U, 1024U}) {
    for (std::uint32_t seed = 0; seed < 20; ++seed) {
      const auto a = random_unit(width, seed);
      auto b = random_unit(width, seed + 1000);
      for (std::size_t i = 0; i < width; ++i) {
        b[i] = 0.6F * a[i] + 0.8F * b[i];
      }
      std::vector<std::int8_t> qa;
      std::vector<std::int8_t> qb;
      append_int8(a, qa);
      append_int8(b, qb);
      double exact = 0;
      double rough = 0;
      for (std::size_t i = 0; i < width; ++i) {
        exact += static_cast<double>(a[i]) * b[i];
        rough += static_cast<double>(qa[i]) * qb[i];
      }
      EXPECT_NEAR(rough / (256.0 * static_cast<double>(width)), exact, 0.01) << width;
    }
  }
}

TEST(Quantise, BitsAreThoseOfPackbits) {
  const std::vector<float> row{1, -1, 0, 0.5F, -0.1F, 0.1F, -2, 3, -1, -1, -1, -1, -1, -1, -1, 1};
  std::vector<std::uint8_t> bits;
  append_ubinary(row, bits);
  EXPECT_EQ(bits, (std::vector<std::uint8_t>{0b10010101, 0b00000001}));
  std::vector<std::int8_t> shifted;
  append_binary(row, shifted);
  EXPECT_EQ(shifted, (std::vector<std::int8_t>{0b10010101 - 128, 1 - 128}));
}

}  // namespace
}  // namespace tessera::gateway
