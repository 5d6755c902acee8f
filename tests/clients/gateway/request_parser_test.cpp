#include "clients/gateway/http/request_parser.hpp"

#include <gtest/gtest.h>

namespace tessera::gateway::http {
namespace {

struct Outcome {
  int status = 200;  // 0: more bytes are wanted.
  std::string body;
  std::string rest;
  bool keep_alive = false;
  std::string message;
};

// Reads one request whose bytes come in pieces of `piece`.
Outcome read(std::string_view bytes, std::size_t piece) {
  RequestParser parser({.head_bytes = 1000});
  std::size_t came = 0;
  std::size_t used = 0;
  auto state = RequestParser::State::kNeedMore;
  while (state == RequestParser::State::kNeedMore && came < bytes.size()) {
    came = std::min(bytes.size(), came + piece);
    state = parser.read_head(bytes.substr(0, came), used);
  }
  if (state == RequestParser::State::kNeedMore) {
    return {.status = 0};
  }
  if (state == RequestParser::State::kBad) {
    return {.status = parser.problem().status, .message = parser.problem().message};
  }
  Outcome outcome{.keep_alive = parser.facts().keep_alive};
  std::size_t at = used;
  if (parser.facts().has_body) {
    state = RequestParser::State::kNeedMore;
    while (state == RequestParser::State::kNeedMore) {
      state = parser.read_body(bytes.substr(at, came - at), used, outcome.body, 1 << 20);
      at += used;
      if (state == RequestParser::State::kNeedMore && came == bytes.size()) {
        return {.status = 0};
      }
      came = std::min(bytes.size(), came + piece);
    }
  }
  if (state == RequestParser::State::kBad) {
    return {.status = parser.problem().status, .message = parser.problem().message};
  }
  outcome.rest = bytes.substr(at);
  return outcome;
}

TEST(RequestParser, WhatTwoServersCouldReadDifferentlyIsRefused) {
  struct Case {
    const char* name;
    std::string bytes;
    int status;
  };
  const std::string host = "Host: a\r\n";
  const Case cases[] = {
      {"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
      {"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
      {"bare CR", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},
      {"NUL", "GET / HTTP/1.1\r\n" + host + std::string("X: a\0b\r\n\r\n", 10), 400},
      {"folded field", "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", 400},
      {"folded encoding",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
      {"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
      {"two equal lengths",
       "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
      {"two lengths",
       "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 2\r\n\r\nab", 400},
      {"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\na", 400},
      {"hex length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x1\r\n\r\na", 400},
      {"length beyond 64 bits",
       "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {"length and chunks",
       "POST / HTTP/1.1\r\n" + host +
           "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400},
      {"chunks and length",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
       400},
      {"chunked twice",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400},
      {"gzip", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 501},
      {"identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 501},
      {"gzip, chunked",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"chunked by another name",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
      {"chunks in HTTP/1.0",
       "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"chunk extension",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
       400},
      {"extension of the last chunk",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0;a\r\n\r\n",
       400},
      {"chunk with bare LF",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400},
      {"chunk longer than its size",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
       400},
      {"chunk size with a sign",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
       400},
      {"chunk size with 0x",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
       400},
      {"chunk size beyond 64 bits",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n",
       400},
      {"trailer",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n",
       400},
      {"other expectation", "POST / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\n\r\n", 417},
      {"HTTP/2", "GET / HTTP/2.0\r\n" + host + "\r\n", 505},
      {"no version", "GET /\r\n\r\n", 400},
      {"long head", "GET / HTTP/1.1\r\n" + host + "X: " + std::string(2000, 'x'), 431},
      {"long target", "GET /" + std::string(2000, 'x'), 431}};
  for (const Case& c : cases) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{100'000}}) {
      const Outcome outcome = read(c.bytes, piece);
      EXPECT_TRUE(outcome.status == c.status ||
                  (c.status == 400 && outcome.status == 505))  // A broken version.
          << c.name << " in pieces of " << piece << ": " << outcome.status << " "
          << outcome.message;
    }
  }
}

TEST(RequestParser, WhatIsSoundIsReadInPiecesOfAnySize) {
  struct Case {
    const char* name;
    std::string bytes;
    std::string body;
    std::string rest;
    bool keep_alive;
  };
  const Case cases[] = {
      {"get", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "", "", true},
      {"close", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "", false},
      {"1.0", "GET /a HTTP/1.0\r\n\r\n", "", "", false},
      {"1.0 kept", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "", "", true},
      {"length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello", "", true},
      {"two requests", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1",
       "hello", "GET / HTTP/1.1", true},
      {"no bytes", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", "", true},
      {"chunks",
       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
       "5\r\nhello\r\n00a\r\n, the rest\r\n0\r\n\r\nGET /",
       "hello, the rest", "GET /", true}};
  for (const Case& c : cases) {
    for (std::size_t piece = 1; piece <= c.bytes.size(); ++piece) {
      const Outcome outcome = read(c.bytes, piece);
      ASSERT_EQ(outcome.status, 200) << c.name << " " << piece << " " << outcome.message;
      EXPECT_EQ(outcome.body, c.body) << c.name << " " << piece;
      EXPECT_EQ(outcome.rest, c.rest) << c.name << " " << piece;
      EXPECT_EQ(outcome.keep_alive, c.keep_alive) << c.name;
    }
  }
}

TEST(RequestParser, EveryCutRequestAsksForMore) {
  const std::string whole =
      "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(read(whole.substr(0, length), 3).status, 0) << length;
  }
}

TEST(Message, TargetsAreDecoded) {
  struct Case {
    const char* target;
    bool good;
    const char* path;
  };
  const Case cases[] = {{"/v1/models", true, "/v1/models"},
                        {"/a%20b?x=1%26&y=a+b&z", true, "/a b"},
                        {"/a%zz", false, ""},
                        {"/a%2", false, ""},
                        {"/a%00b", false, ""},
                        {"a", false, ""},
                        {"http://a/b", false, ""},
                        {"", false, ""},
                        {"*", true, "*"}};
  for (const Case& c : cases) {
    Request request;
    request.target = c.target;
    ASSERT_EQ(parse_target(request), c.good) << c.target;
    if (c.good) {
      EXPECT_EQ(request.path, c.path);
    }
  }
  Request request;
  request.target = "/a?x=1%26&y=a+b&z&x=2";
  ASSERT_TRUE(parse_target(request));
  EXPECT_EQ(request.query_value("x"), "1&");
  EXPECT_EQ(request.query_value("y"), "a b");
  EXPECT_EQ(request.query_value("z"), "");
  EXPECT_FALSE(request.query_value("w"));
}

}  // namespace
}  // namespace tessera::gateway::http
