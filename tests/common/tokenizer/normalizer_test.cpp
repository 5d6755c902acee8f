#include "common/tokenizer/text/normalizer.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "common/tokenizer/text/utf8.hpp"

namespace tessera::tokenizer {
namespace {

std::string nfc(std::string_view text) {
  std::string storage;
  return std::string(Normalizer::instance().normalize(text, storage));
}

TEST(NormalizerTest, Composes) {
  EXPECT_EQ(nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(nfc("a\u0323\u0302"), "\u1ead");
  EXPECT_EQ(nfc("a\u0302\u0323"), "\u1ead");  // Marks are ordered first.
  EXPECT_EQ(nfc("\u00e9\u0327"), "\u0229\u0301");
  EXPECT_EQ(nfc("\u212b\u2126"), "\u00c5\u03a9");  // Replaced by other code points.
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");        // Excluded from composition.
  EXPECT_EQ(nfc("\uf900"), "\u8c48");
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\uac01\u11a8"), "\uac01\u11a8");  // A syllable with a tail takes no other.
}

TEST(NormalizerTest, WhatCameAfterUnicode9IsInert) {
  EXPECT_EQ(nfc("a\u0c3c\u0301"), "a\u0c3c\u0301");  // Class 7 since 14.0: not reordered.
  EXPECT_EQ(nfc("\U000105d2\u0307"), "\U000105d2\u0307");
  EXPECT_EQ(nfc("a\u1abf\u0301"), "a\u1abf\u0301");
}

TEST(NormalizerTest, TextInFormCIsNotCopied) {
  for (const std::string_view text :
       {"plain", "caf\u00e9 \u4e2d\u6587 \ud55c\uae00 \u0410\u0411", "\u0e01\u0e38\u0e48", ""}) {
    std::string storage = "untouched";
    EXPECT_EQ(Normalizer::instance().normalize(text, storage).data(), text.data());
    EXPECT_EQ(storage, "untouched");
  }
}

TEST(NormalizerTest, OnceIsEnoughAndTheSurroundingsDoNotMatter) {
  const char32_t marks[] = {0x300, 0x301,  0x323, 0x327,  0x345,  0x5b4,  0x94d,    0xe38,
                            0x65,  0x61,   0xe9,  0xac00, 0x11a8, 0x1161, 0x1100,   0x4e2d,
                            0x20,  0x212b, 0x344, 0x958,  0x3099, 0x304b, 0x10ffff, 0x1d165};
  std::mt19937 random(1);
  const auto append = [](char32_t code_point, std::string& text) {
    char bytes[4];
    std::size_t length = 0;
    if (code_point < 0x80) {
      bytes[length++] = static_cast<char>(code_point);
    } else {
      const unsigned count = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
      const char32_t lead = count == 2 ? 0xC0 : count == 3 ? 0xE0 : 0xF0;
      bytes[length++] = static_cast<char>(lead | code_point >> 6 * (count - 1));
      for (unsigned i = count - 1; i > 0; --i) {
        bytes[length++] = static_cast<char>(0x80 | (code_point >> 6 * (i - 1) & 0x3F));
      }
    }
    text.append(bytes, length);
  };
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (std::size_t n = random() % 12; n > 0; --n) {
      append(marks[random() % std::size(marks)], text);
    }
    const std::string once = nfc(text);
    ASSERT_EQ(nfc(once), once);
    // A long stable text around it takes the block-wise way in.
    const std::string around(40, '.');
    ASSERT_EQ(nfc(around + "x" + text), around + nfc("x" + text));
    ASSERT_EQ(
        nfc("\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d" + text),
        "\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d" +
            nfc("\u4e2d" + text));
  }
}

TEST(Utf8Test, FindsAndReplacesWhatIsIllFormed) {
  struct Case {
    std::string_view text;
    std::size_t first_invalid;
    std::string_view repaired;
  };
  const Case cases[] = {
      {"ok \xF0\x9F\x98\x80", 7, "ok \xF0\x9F\x98\x80"},
      {"\x80", 0, "\uFFFD"},
      {"a\xC0\xAF", 1, "a\uFFFD\uFFFD"},
      {"\xE0\x80\x80", 0, "\uFFFD\uFFFD\uFFFD"},
      {"\xED\xA0\x80z", 0, "\uFFFD\uFFFD\uFFFDz"},
      {"\xF4\x90\x80\x80", 0, "\uFFFD\uFFFD\uFFFD\uFFFD"},
      {"\xF0\x9F\x98", 0, "\uFFFD"},
      {"\xF0\x9F\x98x", 0, "\uFFFDx"},
      {"\xE4\xB8\xE4\xB8\xAD", 0, "\uFFFD\xE4\xB8\xAD"},
      {"", 0, ""},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(first_invalid_utf8(one.text), one.first_invalid) << one.text;
    EXPECT_EQ(is_valid_utf8(one.text), one.first_invalid == one.text.size());
    EXPECT_EQ(replace_invalid_utf8(one.text), one.repaired);
  }
}

}  // namespace
}  // namespace tessera::tokenizer
