#include "common/log.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/check.hpp"
#include "common/json_text.hpp"

namespace tessera {
namespace {

struct Trace {
  std::string id;
  std::string traceparent;
};

// What is written to stderr while `write` runs.
template <typename F>
std::string logged(log::Form form, F write) {
  testing::internal::CaptureStderr();
  log::init("tested", "info", form);
  write();
  log::flush();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, TextLinesNameTheRequest) {
  const std::string lines = logged(log::Form::kText, [] {
    log::about(log::Level::kInfo, Trace{"req_1\nforged", "00-1-2-3"}, "{} items", 3);
    log::about(log::Level::kInfo, Trace{}, "none");
    log::about(log::Level::kDebug, Trace{"req_2", ""}, "not at this level");
  });
  EXPECT_NE(lines.find("info tested: 3 items [request req_1?forged]\n"), std::string::npos)
      << lines;
  EXPECT_NE(lines.find("info tested: none\n"), std::string::npos) << lines;
  EXPECT_EQ(lines.find("req_2"), std::string::npos);
}

TEST(Log, JsonLinesAreOneObjectEach) {
  const std::string lines = logged(log::Form::kJson, [] {
    log::about(log::Level::kWarn, Trace{"req_\"1\"", "00-1-2-3"}, "two\nlines and \xff");
    log::info("of no request");
  });
  EXPECT_EQ(std::ranges::count(lines, '\n'), 2) << lines;
  EXPECT_NE(lines.find(R"("level":"warning","process":"tested","message":"two\nlines and )"
                       "\xEF\xBF\xBD"
                       R"(","request_id":"req_\"1\"","traceparent":"00-1-2-3"})"),
            std::string::npos)
      << lines;
  EXPECT_NE(lines.find(R"("message":"of no request"})"), std::string::npos) << lines;
  EXPECT_TRUE(lines.starts_with("{\"time\":\"20")) << lines;
}

TEST(Log, RefusesAnUnknownLevel) { EXPECT_THROW(log::init("tested", "loud"), FatalError); }

TEST(JsonText, KnowsUtf8) {
  struct Case {
    std::string text;
    std::size_t bytes;
  };
  for (const Case& c :
       {Case{"", 0}, Case{"a", 1}, Case{"\xc3\xa9", 2}, Case{"\xe2\x82\xac", 3},
        Case{"\xf0\x9f\x99\x82", 4}, Case{"\xc3", 0}, Case{"\xc0\xaf", 0}, Case{"\xe0\x80\xaf", 0},
        Case{"\xed\xa0\x80", 0}, Case{"\xf4\x90\x80\x80", 0}, Case{"\xf5\x80\x80\x80", 0},
        Case{"\x80", 0}, Case{"\xf0\x8f\xbf\xbf", 0}}) {
    EXPECT_EQ(utf8_character(c.text), c.bytes) << c.text;
  }
  std::string out;
  append_json_string(out, std::string_view("\"\\\n\r\t\x01\0z", 8));
  EXPECT_EQ(out, R"("\"\\\n\r\t\u0001\u0000z")");
}

}  // namespace
}  // namespace tessera
