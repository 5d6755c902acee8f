#include "coordinator/redis_url.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "coordinator/redis_login.hpp"

namespace tessera::coordinator {
namespace {

using namespace std::string_literals;
using ::testing::HasSubstr;
using ::testing::Not;

RedisAddress tcp(std::string host, int port = 6379, std::string user = "",
                 std::string password = "", int database = 0) {
  return {.host = std::move(host),
          .port = port,
          .user = std::move(user),
          .password = std::move(password),
          .database = database};
}

RedisAddress socket(std::string path, std::string user = "", std::string password = "",
                    int database = 0) {
  return {.socket = std::move(path),
          .user = std::move(user),
          .password = std::move(password),
          .database = database};
}

TEST(RedisUrl, IsReadInAllItsForms) {
  const std::pair<std::string, RedisAddress> cases[] = {
      {"redis://h", tcp("h")},
      {"REDIS://h", tcp("h")},
      {"redis://h:1234", tcp("h", 1234)},
      {"redis://h:", tcp("h")},
      {"redis://h/", tcp("h")},
      {"redis://h/5", tcp("h", 6379, "", "", 5)},
      {"redis://h:1/5", tcp("h", 1, "", "", 5)},
      {"redis://h?db=5", tcp("h", 6379, "", "", 5)},
      {"redis://h/5?db=5", tcp("h", 6379, "", "", 5)},
      {"redis://10.0.0.5:65535", tcp("10.0.0.5", 65'535)},
      {"redis://a-b_c.example", tcp("a-b_c.example")},
      {"redis://[::1]", tcp("::1")},
      {"redis://[::1]:7", tcp("::1", 7)},
      {"redis://:pw@[fe80::1%25eth0]:7/2", tcp("fe80::1%eth0", 7, "", "pw", 2)},
      {"redis://:pw@h", tcp("h", 6379, "", "pw")},
      {"redis://pw@h", tcp("h", 6379, "", "pw")},
      {"redis://:p%40ss@h", tcp("h", 6379, "", "p@ss")},
      {"redis://alice:pw@h", tcp("h", 6379, "alice", "pw")},
      {"redis://al%3Aice:p%25w@h:1/2", tcp("h", 1, "al:ice", "p%w", 2)},
      {"redis://:a:b@h", tcp("h", 6379, "", "a:b")},
      {"redis://:p@s/w?d#@h", tcp("h", 6379, "", "p@s/w?d#")},
      {"redis://:%00%ff@h", tcp("h", 6379, "", "\0\xff"s)},
      {"redis://:@h", tcp("h")},
      {"redis://alice:@h", tcp("h", 6379, "alice")},
      {"unix:/run/redis.sock", socket("/run/redis.sock")},
      {"unix:///run/redis.sock", socket("/run/redis.sock")},
      {"Unix:redis.sock", socket("redis.sock")},
      {"unix://redis.sock", socket("redis.sock")},
      {"unix:/run/a%20b%3F.sock?db=3", socket("/run/a b?.sock", "", "", 3)},
      {"unix:/run/me@home/s", socket("/run/me@home/s")},
      {"unix://alice:p%40w@/run/s?db=1", socket("/run/s", "alice", "p@w", 1)},
      {"unix://:pw@/run/s", socket("/run/s", "", "pw")},
  };
  for (const auto& [url, expected] : cases) {
    const auto read = parse_redis_url(url);
    ASSERT_TRUE(read.ok()) << url << ": " << read.error().message;
    EXPECT_EQ(*read, expected) << url;
    const auto again = parse_redis_url(read->printable());
    if (read->socket.find_first_of(" ?") == std::string::npos &&
        read->host.find('%') == std::string::npos) {
      ASSERT_TRUE(again.ok()) << read->printable();
      EXPECT_TRUE(again->same_server(expected) && again->database == expected.database) << url;
      EXPECT_TRUE(again->user.empty() && again->password.empty()) << url;
    }
  }
}

// In each of them "s3cret" is, or may have been meant as, a part of a secret.
TEST(RedisUrl, WhatItIsNotIsSaidWithoutWhatItHolds) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "neither redis:// nor unix:"},
      {"s3cret", "neither redis:// nor unix:"},
      {"http://:s3cret@h", "neither redis:// nor unix:"},
      {"redis:s3cret", "neither redis:// nor unix:"},
      {"s3cret://h", "neither redis:// nor unix:"},
      {"valkey://:s3cret@h", "neither redis:// nor unix:"},
      {"rediss://:s3cret@h", "TLS tunnel"},
      {"REDISS://:s3cret@h", "TLS tunnel"},
      {"redis://", "names no host"},
      {"redis://:s3cret", "names no host"},
      {"redis://:s3cret@", "names no host"},
      {"redis://:s3cret@:6379", "names no host"},
      {"redis://:s3cret@/0", "names no host"},
      {"redis://:s3cret@h h", "no name and no address"},
      {"redis://s3cret%41", "no name and no address"},
      {"redis://h:s3cret", "port is not a number"},
      {"redis://h:0", "port is not a number"},
      {"redis://h:65536", "port is not a number"},
      {"redis://h:-1", "port is not a number"},
      {"redis://h:+1", "port is not a number"},
      {"redis://h: 1", "port is not a number"},
      {"redis://h:99999999999999999999", "port is not a number"},
      {"redis://::1", "in brackets"},
      {"redis://::1:6379", "in brackets"},
      {"redis://[::1", "brackets"},
      {"redis://[::1]6379", "brackets"},
      {"redis://[s3cret]", "no IPv6 address"},
      {"redis://[]", "no IPv6 address"},
      {"redis://h/s3cret", "database is not a number"},
      {"redis://h/1/2", "database is not a number"},
      {"redis://h/-1", "database is not a number"},
      {"redis://h/99999999999", "database is not a number"},
      {"redis://h/1?db=2", "two databases"},
      {"redis://h?db=", "database is not a number"},
      {"redis://h?password=s3cret", "only db=NUMBER"},
      {"redis://h?db=1&ssl=true", "only db=NUMBER"},
      {"redis://h?", "only db=NUMBER"},
      {"redis://h#s3cret", "no name and no address"},
      {"redis://:s3cret%@h", "write % as %25"},
      {"redis://:s3cret%4@h", "write % as %25"},
      {"redis://s3cret%zz:x@h", "write % as %25"},
      {"unix:", "no path"},
      {"unix://", "no path"},
      {"unix:/run/%zz", "no path"},
      {"unix:/run/a%00b", "no path"},
      {"unix:/" + std::string(200, 'x'), "too long"},
      {"unix:/run/s?password=s3cret", "only db=NUMBER"},
  };
  for (const auto& [url, expected] : cases) {
    const auto read = parse_redis_url(url);
    ASSERT_FALSE(read.ok()) << url;
    EXPECT_THAT(read.error().message, HasSubstr(expected)) << url;
    EXPECT_THAT(read.error().message, Not(HasSubstr("s3cret"))) << url;
  }
}

TEST(RedisUrl, NothingOfASecretIsPrinted) {
  for (const std::string url :
       {"redis://:s3cret@h/2", "redis://s3cret@h", "redis://s3cret:s3cret@[::1]",
        "unix://s3cret:s3cret@/run/s", "redis://:s3%63ret@s3cret@h"}) {
    const auto read = parse_redis_url(url);
    ASSERT_TRUE(read.ok()) << url;
    EXPECT_THAT(read->printable(), Not(HasSubstr("s3cret"))) << url;
  }
  const std::pair<std::string, std::string> texts[] = {
      {"redis://:s3cret@h:1", "redis://***@h:1"},
      {"REDIS://u:s3cret@h", "REDIS://***@h"},
      {"rediss://:s3cret@h", "rediss://***@h"},
      {"unix://:s3cret@/run/s", "unix://***@/run/s"},
      {"redis://:s3cret@s3cret@h", "redis://***@h"},
      {"redis://:s3cret s3cret@h", "redis://***@h"},
      {"redis://:s3cret", "redis://***"},
      {"x: \"redis://s3cret\" y", "x: \"redis://***\" y"},
      {"a redis://:s3cret@h\nb redis://:s3cret@g", "a redis://***@h\nb redis://***@g"},
      {"tcp://127.0.0.1:7400", "tcp://127.0.0.1:7400"},
      {"nothing", "nothing"},
      {"redis://", "redis://"},
      {"://@", "://@"},
  };
  for (const auto& [text, expected] : texts) {
    EXPECT_EQ(hide_secrets(text), expected);
  }
}

TEST(RedisUrl, AnyBytesAreReadOrRefused) {
  std::mt19937 random(11);
  const std::string parts[] = {"redis://", "unix:", "//", "[", "]", ":",   "@",    "/",   "?db=",
                               "%40",      "%",     "h",  "1", ".", "\0"s, "\xff", "::1", "#"};
  for (int i = 0; i < 200'000; ++i) {
    std::string url = random() % 4 == 0 ? "" : parts[random() % 2];
    for (std::size_t n = random() % 8; n > 0; --n) {
      url += parts[random() % std::size(parts)];
    }
    (void)hide_secrets(url);
    if (const auto read = parse_redis_url(url)) {
      EXPECT_NE(read->host.empty(), read->socket.empty());
      EXPECT_TRUE(read->port > 0 && read->port < 65'536 && read->database >= 0);
    }
  }
}

class RedisLoginTest : public ::testing::Test {
 protected:
  std::string file(const std::string& content) {
    std::ofstream(path_, std::ios::binary) << content;
    return path_;
  }
  ~RedisLoginTest() override { unlink(path_.c_str()); }
  const std::string path_ = testing::TempDir() + "password_" + std::to_string(getpid());
};

TEST_F(RedisLoginTest, ThePasswordComesFromTheMostSpecificPlace) {
  const auto password = [](RedisLogin login) {
    login.option = "--redis";
    const auto address = resolve_login(login);
    return address ? address->password : "error: " + address.error().message;
  };
  EXPECT_EQ(password({.url = "redis://h"}), "");
  EXPECT_EQ(password({.url = "redis://:url@h", .environment = "variable"}), "url");
  EXPECT_EQ(password({.url = "redis://h", .environment = "variable"}), "variable");
  EXPECT_EQ(password({.url = "redis://a:@h", .environment = "p%40ss"}), "p%40ss") << "as it is";
  EXPECT_EQ(
      password({.url = "redis://h", .password_file = file("file\n"), .environment = "variable"}),
      "file");
  EXPECT_EQ(password({.url = "unix:/s", .password_file = file("two words \r\n")}), "two words ");
  for (const std::string content : {"", "\n", "a\nb\n"}) {
    EXPECT_THAT(password({.url = "redis://h", .password_file = file(content)}),
                HasSubstr("does not hold one line"));
  }
  EXPECT_THAT(password({.url = "redis://h", .password_file = path_ + ".none"}),
              HasSubstr("No such file"));
  EXPECT_THAT(password({.url = "redis://:url@h", .password_file = file("file")}),
              HasSubstr("leave one of them out"));
  EXPECT_THAT(password({.url = "redis://alice:@h"}), HasSubstr("user without a password"));
  EXPECT_THAT(password({.url = "redis://h:x"}), HasSubstr("--redis: the port"));
}

}  // namespace
}  // namespace tessera::coordinator
