#include "clients/gateway/files/multipart.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace tessera::gateway {
namespace {

// What came, with slices of data put together.
struct Got : MultipartSink {
  Result<void> on_part(MultipartPart part) override {
    events.push_back("part " + part.name + (part.filename ? " file " + *part.filename : "") +
                     (part.content_type.empty() ? "" : " type " + part.content_type));
    data.emplace_back();
    open = true;
    return {};
  }
  Result<void> on_data(std::string_view bytes) override {
    EXPECT_TRUE(open);
    EXPECT_FALSE(bytes.empty());
    data.back() += bytes;
    return data.back().find("REFUSE") == std::string::npos
               ? Result<void>()
               : Error{ErrorCode::kResourceExhausted, "refused"};
  }
  Result<void> on_part_end() override {
    EXPECT_TRUE(open);
    open = false;
    events.push_back("data " + data.back());
    return {};
  }
  std::vector<std::string> events;
  std::vector<std::string> data;
  bool open = false;
};

struct Outcome {
  std::vector<std::string> events;
  std::optional<ErrorCode> error;
  std::string message;
  bool operator==(const Outcome&) const = default;
};

// Feeds the body cut at the given places.
Outcome read(std::string_view body, const std::vector<std::size_t>& cuts,
             std::string_view boundary = "xx") {
  Got got;
  MultipartParser parser(boundary, got);
  std::size_t from = 0;
  Result<void> ok;
  for (std::size_t i = 0; i <= cuts.size() && ok; ++i) {
    const std::size_t to = i < cuts.size() ? cuts[i] : body.size();
    ok = parser.feed(body.substr(from, to - from));
    from = to;
  }
  if (ok) {
    ok = parser.end();
  }
  return {.events = got.events,
          .error = ok ? std::nullopt : std::optional(ok.error().code),
          .message = ok ? "" : ok.error().message};
}

Outcome read_bytewise(std::string_view body) {
  std::vector<std::size_t> cuts;
  for (std::size_t i = 1; i < body.size(); ++i) {
    cuts.push_back(i);
  }
  return read(body, cuts);
}

std::string part(const std::string& fields, const std::string& data) {
  return "--xx\r\nContent-Disposition: form-data; " + fields + "\r\n\r\n" + data + "\r\n";
}

const std::string kGood[] = {
    part("name=\"purpose\"", "batch") + "--xx--\r\n",
    part("name=\"purpose\"", "batch") + "--xx--",
    part("name=\"purpose\"", "") + part("name=\"b\"", "") + "--xx--\r\n",
    part("name=\"file\"; filename=\"a.jsonl\"",
         "{\"a\":1}\r\n\r\n--x\r\n--\r\n-\r\r\n\r\n--y\n--xx\n") +
        part("name=\"purpose\"", "batch") + "--xx--\r\nepilogue\r\n--xx\r\n",
    "preamble\r\n--x\r\n" + part("name=b", std::string("\0\xFF\r\n--x", 7)) + "--xx-- \t\r\n",
    "--xx \t \r\nX: y\r\ncontent-type: "
    "a/b\r\nCONTENT-DISPOSITION:form-data;name=\"n\"\r\n\r\nv\r\n--xx--",
    "--xx\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n--xx--",
};

TEST(Multipart, EveryCutGivesTheSame) {
  for (const std::string& body : kGood) {
    const Outcome whole = read(body, {});
    ASSERT_FALSE(whole.error) << body << whole.message;
    EXPECT_FALSE(whole.events.empty());
    EXPECT_EQ(read_bytewise(body), whole) << body;
    for (std::size_t i = 0; i <= body.size(); ++i) {
      for (std::size_t j = i; j <= body.size(); j += 1 + body.size() / 16) {
        EXPECT_EQ(read(body, {i, j}), whole) << body << " cut at " << i << " and " << j;
      }
    }
  }
}

TEST(Multipart, PartsAndTheirBytesComeAsSent) {
  using Events = std::vector<std::string>;
  EXPECT_EQ(read(kGood[0], {}).events, (Events{"part purpose", "data batch"}));
  EXPECT_EQ(read(kGood[2], {}).events, (Events{"part purpose", "data ", "part b", "data "}));
  EXPECT_EQ(
      read(kGood[3], {}).events,
      (Events{"part file file a.jsonl", "data {\"a\":1}\r\n\r\n--x\r\n--\r\n-\r\r\n\r\n--y\n--xx\n",
              "part purpose", "data batch"}));
  EXPECT_EQ(read(kGood[4], {}).events,
            (Events{"part b", "data " + std::string("\0\xFF\r\n--x", 7)}));
  EXPECT_EQ(read(kGood[5], {}).events, (Events{"part n type a/b", "data v"}));
  EXPECT_EQ(read(kGood[6], {}).events, (Events{"part empty", "data "}));
}

TEST(Multipart, WhatIsNotAWholeBodyIsRefusedWhereverItIsCut) {
  const std::string ok = part("name=\"a\"", "v");
  const std::string field = "--xx\r\nContent-Disposition: form-data; ";
  const std::string bad[] = {
      "",
      "no boundary",
      ok,
      ok + "--xx-",
      ok + "--xx\r\n",
      ok + "--xx--x",
      ok + "--xx--\rx",
      ok + "--xx-x\r\n",
      ok + "--xxx--\r\n",
      ok + "--xx --\r\n",
      ok + "--xx\n",
      ok + "--xx" + std::string(300, ' ') + "\r\n",
      "--xx\r\n\r\nv\r\n--xx--",
      "--xx\r\nX: y\r\n\r\nv\r\n--xx--",
      "--xx\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nv\r\n--xx--",
      field + "filename=\"a\"\r\n\r\nv\r\n--xx--",
      field + "name=\"\"\r\n\r\nv\r\n--xx--",
      field + "name=\"a\r\n\r\nv\r\n--xx--",
      field + "name=\"a\" filename=\"b\"\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"; name=\"b\"\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"; filename=\"b\"; filename=\"c\"\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"; filename*=latin1''b\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"; filename*=UTF-8''%\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"\r\n folded\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"\r\nno field\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"\r\nX: a\nb\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"\r\nX: a" + std::string(1, '\0') + "\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\nv\r\n--xx--",
      field + "name=\"a\"\r\nContent-Transfer-Encoding: base64\r\n\r\nv\r\n--xx--",
  };
  for (const std::string& body : bad) {
    const Outcome whole = read(body, {});
    EXPECT_EQ(whole.error, ErrorCode::kInvalidArgument) << body;
    EXPECT_EQ(read_bytewise(body).error, whole.error) << body;
    EXPECT_EQ(read_bytewise(body).events, whole.events) << body;
  }
  for (const std::string& body : kGood) {  // Every begin of a good body is none.
    const std::size_t closed =
        body.rfind("--xx--") == std::string::npos ? body.size() : body.find("--xx--") + 6;
    for (std::size_t length = 0; length < closed; ++length) {
      EXPECT_EQ(read(body.substr(0, length), {}).error, ErrorCode::kInvalidArgument)
          << body.substr(0, length);
    }
  }
}

TEST(Multipart, WhatIsHeldIsBounded) {
  const std::string head = "--xx\r\nContent-Disposition: form-data; name=\"a\"\r\nX: ";
  const std::size_t rest = MultipartParser::kHeadBytesMax - (head.size() - 6);
  const std::string full = head + std::string(rest, 'x') + "\r\n\r\nv\r\n--xx--";
  const std::string over = head + std::string(rest + 1, 'x') + "\r\n\r\nv\r\n--xx--";
  EXPECT_FALSE(read(full, {}).error);
  EXPECT_FALSE(read_bytewise(full).error);
  EXPECT_TRUE(read(over, {}).error);
  EXPECT_TRUE(read_bytewise(over).error);
  EXPECT_TRUE(read(head + std::string(rest + 100, 'x'), {}).error);

  std::string parts;
  for (std::size_t i = 0; i < MultipartParser::kPartsMax; ++i) {
    parts += part("name=\"a\"", "v");
  }
  EXPECT_FALSE(read(parts + "--xx--", {}).error);
  EXPECT_TRUE(read(parts + part("name=\"a\"", "v") + "--xx--", {}).error);

  const std::string skipped(MultipartParser::kSkippedMax + 100, 'x');
  const std::string ok = part("name=\"a\"", "v") + "--xx--\r\n";
  EXPECT_TRUE(read(skipped + "\r\n" + ok, {}).error);
  EXPECT_TRUE(read(ok + skipped, {}).error);
  EXPECT_FALSE(read(skipped.substr(200) + "\r\n" + ok + skipped.substr(200), {}).error);
}

TEST(Multipart, TheSinksErrorEndsIt) {
  const std::string body = part("name=\"a\"", "some REFUSE") + "--xx--";
  EXPECT_EQ(read(body, {}).error, ErrorCode::kResourceExhausted);
  EXPECT_EQ(read_bytewise(body).error, ErrorCode::kResourceExhausted);
}

TEST(Multipart, FilenamesAsClientsWriteThem) {
  struct Case {
    std::string sent;
    std::string name;
  };
  const Case cases[] = {
      {R"(filename="a b.jsonl")", "a b.jsonl"},
      {R"(filename=plain.jsonl)", "plain.jsonl"},
      {R"(filename="a%22b%0D%0Ac%20d%.jsonl")", "a\"b\r\nc%20d%.jsonl"},  // Browsers.
      {R"(filename="a\"b\\c.jsonl")", R"(a"b\c.jsonl)"},                  // curl, httpx.
      {R"(filename="C:\dir\x.jsonl")", R"(C:\dir\x.jsonl)"},
      {R"(filename="../../etc/passwd")", "../../etc/passwd"},
      {"filename=\"\xC3\xA9.jsonl\"", "\xC3\xA9.jsonl"},
      {R"(filename="")", ""},
      {R"(filename="e.jsonl"; filename*=UTF-8'en'%C3%A9%20.jsonl)", "\xC3\xA9 .jsonl"},
      {R"(filename="a;b=c.jsonl" ; size=1)", "a;b=c.jsonl"},
  };
  for (const Case& c : cases) {
    const auto head = parse_part_head("Content-Disposition: form-data; name=\"file\"; " + c.sent);
    ASSERT_TRUE(head) << c.sent << head.error().message;
    EXPECT_EQ(head->filename, c.name);
    EXPECT_EQ(head->name, "file");
  }
}

TEST(Multipart, Boundaries) {
  const std::string longest(70, 'b');
  const std::pair<std::string, std::string> good[] = {
      {"multipart/form-data; boundary=abc", "abc"},
      {"Multipart/Form-Data;charset=utf-8; BOUNDARY=\"a b:c=\"", "a b:c="},
      {"multipart/form-data; boundary=" + longest, longest},
      {"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk",
       "----WebKitFormBoundary7MA4YWxk"}};
  for (const auto& [type, boundary] : good) {
    const auto read = multipart_boundary(type);
    ASSERT_TRUE(read) << type;
    EXPECT_EQ(*read, boundary);
  }
  for (const std::string& type :
       {std::string(""), std::string("application/json"), std::string("multipart/form-data"),
        std::string("multipart/mixed; boundary=a"), std::string("multipart/form-data; boundary="),
        std::string("multipart/form-data; boundary=\"\""),
        std::string("multipart/form-data; boundary=\"a \""),
        std::string("multipart/form-data; boundary=\"a"),
        std::string("multipart/form-data; boundary=a;boundary=b"),
        std::string("multipart/form-data; boundary=\"a\r\nb\""),
        "multipart/form-data; boundary=b" + longest}) {
    EXPECT_FALSE(multipart_boundary(type)) << type;
  }
}

}  // namespace
}  // namespace tessera::gateway
