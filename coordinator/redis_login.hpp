#pragma once

#include <optional>
#include <string>

#include "common/result.hpp"
#include "coordinator/redis_url.hpp"

namespace tessera::coordinator {

// What is said of one Redis server on the command line, in the --config file and the environment.
struct RedisLogin {
  std::string url;                         // Empty: the server is not given.
  std::string password_file;               // Empty: none.
  std::optional<std::string> environment;  // The password that a variable holds.
  std::string option;                      // "--redis", for messages.
};

// The address with its password: the URL's, or the file's (all of it but a line break at its end),
// or else the variable's. Errors are sentences without anything of a secret: a malformed URL, two
// passwords, a file that cannot be read or holds no single line, a user without a password.
Result<RedisAddress> resolve_login(const RedisLogin& login);

}  // namespace tessera::coordinator
