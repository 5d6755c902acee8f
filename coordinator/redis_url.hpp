#pragma once

#include <string>
#include <string_view>

#include "common/result.hpp"

namespace tessera::coordinator {

// Where a Redis server is, and how it is entered.
struct RedisAddress {
  std::string host;  // A name or an IP address; empty: a unix socket.
  int port = 6379;
  std::string socket;    // Path of the unix socket.
  std::string user;      // Empty: the server's default user.
  std::string password;  // Any bytes; empty: none.
  int database = 0;
  bool operator==(const RedisAddress&) const = default;

  bool same_server(const RedisAddress& other) const {
    return host == other.host && port == other.port && socket == other.socket;
  }
  // A URL of it for people to read: nothing of user or password.
  std::string printable() const;
};

// Reads
//   redis://[[USER]:PASSWORD@]HOST[:PORT][/DB][?db=DB]
//   unix:PATH[?db=DB], unix://[[USER]:PASSWORD@]/PATH[?db=DB]
// with %XX for bytes that would end a part; HOST may be an IPv6 address in brackets; one word
// before the @ is the password. The error is a sentence that says what is wrong and what to write
// instead, and quotes nothing of the URL, since any part of it may be one of the secret.
Result<RedisAddress> parse_redis_url(std::string_view url);

// `text`, which may hold such URLs, without their secrets: "redis://***@host".
std::string hide_secrets(std::string text);

}  // namespace tessera::coordinator
