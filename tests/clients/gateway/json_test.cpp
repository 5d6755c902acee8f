#include "clients/gateway/api/json.hpp"

#include <gtest/gtest.h>

#include "clients/gateway/api/embed_body.hpp"

namespace tessera::gateway {
namespace {

Result<void> ignore(std::string_view, JsonValue&) { return {}; }

TEST(Json, WhatIsNotOneObjectIsRefused) {
  struct Case {
    std::string body;
    const char* says;
  };
  const Case cases[] = {{"", "empty"},
                        {"   ", "empty"},
                        {"[1]", "not a JSON object"},
                        {"\"text\"", "not a JSON object"},
                        {"{", "not valid JSON"},
                        {"{}{}", "not valid JSON"},
                        {"{} x", "not valid JSON"},
                        {R"({"a":1,})", "not valid JSON"},
                        {R"({"a":01})", "not valid JSON"},
                        {R"({"a":NaN})", "not valid JSON"},
                        {R"({"a":1,"a":2})", "a is there twice"},
                        {R"({"a":"\x"})", "not valid UTF-8 or has a broken escape"},
                        {R"({"a":"\ud800"})", "not valid UTF-8 or has a broken escape"},
                        {"{\"a\":\"\xFF\"}", "not valid UTF-8"},
                        {"{\"a\":\"line\nbreak\"}", "not valid"},
                        {"\xEF\xBB\xBF{}x", "not valid JSON"}};
  for (const Case& c : cases) {
    std::string body = c.body;
    const auto ok = read_json_object(body, ignore);
    ASSERT_FALSE(ok.ok()) << c.body;
    EXPECT_NE(ok.error().message.find(c.says), std::string::npos)
        << c.body << ": " << ok.error().message;
    EXPECT_EQ(body, c.body);
  }
}

TEST(Json, NestingHasABound) {
  std::string body = R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_FALSE(read_json_object(body, ignore).ok());
}

TEST(Json, ValuesSayWhatTheyAre) {
  std::string body = R"({"t":"a\u00e9\ud83d\ude00\u0000b","b":true,"i":-7,"d":1.5)"
                     R"(,"n":null,"l":[1,"x"],"o":{"k":[]}})";
  std::string seen;
  const auto ok = read_json_object(body, [&](std::string_view name, JsonValue& value) {
    const auto kind = value.kind();
    seen += std::string(name) + "=" + std::string(to_string(*kind)) + ";";
    if (name == "t") {
      EXPECT_EQ(*value.text(), std::string_view("a\xC3\xA9\xF0\x9F\x98\x80\0b", 9));
      EXPECT_FALSE(value.integer().ok());
    } else if (name == "i") {
      EXPECT_EQ(*value.integer(), -7);
      EXPECT_FALSE(value.text().ok());
    } else if (name == "d") {
      EXPECT_EQ(*value.number(), 1.5);
      EXPECT_FALSE(value.integer().ok());
    } else if (name == "o") {
      EXPECT_EQ(*value.raw(), R"({"k":[]})");
    }
    return Result<void>();
  });
  ASSERT_TRUE(ok.ok()) << ok.error().message;
  EXPECT_EQ(seen, "t=a string;b=a boolean;i=a number;d=a number;n=null;l=an array;o=an object;");
}

TEST(Json, InputsOfEveryForm) {
  struct Case {
    const char* value;
    std::size_t items;  // 0: refused.
    bool ids;
    const char* says;
  };
  const Case cases[] = {{R"("text")", 1, false, ""},
                        {R"(["a","b","c"])", 3, false, ""},
                        {R"([1,2,3])", 1, true, ""},
                        {R"([[1],[2,3]])", 2, true, ""},
                        {R"([])", 0, false, ""},
                        {R"([[]])", 0, false, "empty list of token ids"},
                        {R"([1,"a"])", 0, false, "mixes a number and a string"},
                        {R"([[1],"a"])", 0, false, "mixes an array and a string"},
                        {R"([1.5])", 0, false, "whole numbers"},
                        {R"([-1])", 0, false, "in no vocabulary"},
                        {R"([2147483648])", 0, false, "in no vocabulary"},
                        {R"([[1,"a"]])", 0, false, "whole numbers"},
                        {R"([null])", 0, false, "holds null"},
                        {R"({"a":1})", 0, false, "must be a string"},
                        {R"(7)", 0, false, "must be a string"},
                        {R"(["1","2","3","4","5"])", 0, false, "more than 4 items"}};
  for (const Case& c : cases) {
    std::string body = std::string(R"({"input":)") + c.value + "}";
    ItemList items;
    const auto problem = read_fields(
        body, [&](std::string_view, JsonValue& value) { return read_items(value, 4, items); });
    if (*c.says != '\0') {
      ASSERT_TRUE(problem) << c.value;
      EXPECT_EQ(problem->param, "input");
      EXPECT_NE(problem->message.find(c.says), std::string::npos)
          << c.value << ": " << problem->message;
    } else {
      EXPECT_FALSE(problem) << c.value;
      EXPECT_EQ(items.size(), c.items) << c.value;
      EXPECT_EQ(items.has_ids(), c.ids) << c.value;
    }
  }
}

TEST(Json, ManyItemsAreCutIntoMessages) {
  ItemList items;
  for (int i = 0; i < 600; ++i) {
    ASSERT_TRUE(items.add_text("text " + std::to_string(i), 2048).ok());
  }
  const std::string large(700'000, 'x');
  ASSERT_TRUE(items.add_text(large, 2048).ok());
  ASSERT_TRUE(items.add_text(large, 2048).ok());
  EXPECT_FALSE(items.add_text(std::string((4U << 20) + 1, 'x'), 2048).ok());
  ASSERT_EQ(items.blocks().size(), 4U);
  EXPECT_EQ(items.blocks()[0].sizes.size(), 256U);
  EXPECT_EQ(items.blocks()[1].sizes.size(), 256U);
  EXPECT_EQ(items.blocks()[2].sizes.size(), 89U);
  EXPECT_EQ(items.blocks()[3].sizes.size(), 1U);
  for (const auto& block : items.blocks()) {
    EXPECT_TRUE(protocol::validate(block).ok());
  }
}

TEST(Json, TruncationInEveryFamilysWords) {
  using protocol::Truncate;
  const std::pair<const char*, Truncate> good[] = {
      {"true", Truncate::kRight},      {"false", Truncate::kNone},
      {R"("NONE")", Truncate::kNone},  {R"("START")", Truncate::kLeft},
      {R"("END")", Truncate::kRight},  {R"("left")", Truncate::kLeft},
      {R"("right")", Truncate::kRight}};
  for (const auto& [text, expected] : good) {
    std::string body = std::string(R"({"t":)") + text + "}";
    const auto problem = read_fields(body, [&, want = expected](std::string_view, JsonValue& v) {
      const auto got = read_truncate(v);
      EXPECT_TRUE(got.ok() && *got == want) << body;
      return Result<void>();
    });
    EXPECT_FALSE(problem);
  }
  for (const char* bad : {"1", R"("middle")", "[]", "{}"}) {
    std::string body = std::string(R"({"t":)") + bad + "}";
    EXPECT_TRUE(read_fields(body, [](std::string_view, JsonValue& v) -> Result<void> {
      const auto got = read_truncate(v);
      return got ? Result<void>() : Result<void>(got.error());
    })) << bad;
  }
}

TEST(Json, TakesWhatFitsAndLeavesTheRestAlone) {
  std::string body = R"({"text":"a","flag":true,"small":255,"large":256,"negative":-1})";
  std::string text = "before";
  bool flag = false;
  std::uint8_t number = 7;
  std::vector<std::string> refused;
  ASSERT_TRUE(read_json_object(body, [&](std::string_view name, JsonValue& value) -> Result<void> {
                if (name == "text") return take(value, text);
                if (name == "flag") return take(value, flag);
                if (const auto ok = take(value, number); !ok) {
                  refused.push_back(std::string(name) + " " + ok.error().message);
                }
                bool wrong_kind = true;
                EXPECT_FALSE(take(value, wrong_kind));
                EXPECT_TRUE(wrong_kind);
                EXPECT_FALSE(take(value, text));
                return {};
              }).ok());
  EXPECT_EQ(text, "a");
  EXPECT_TRUE(flag);
  EXPECT_EQ(number, 255);
  EXPECT_EQ(refused,
            (std::vector<std::string>{"large is out of range", "negative is out of range"}));
}

}  // namespace
}  // namespace tessera::gateway
