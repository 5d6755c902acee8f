#include "coordinator/redis_login.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

namespace tessera::coordinator {
namespace {

constexpr std::size_t kPasswordBytesMax = 64U << 10;

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<std::string> read_password(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string password(std::istreambuf_iterator<char>(file), {});
  if (!file.is_open() || file.bad()) {
    return invalid("the password file " + path + " cannot be read: " + std::strerror(errno));
  }
  for (const char end : {'\n', '\r'}) {
    if (password.ends_with(end)) {
      password.pop_back();
    }
  }
  if (password.empty() || password.size() > kPasswordBytesMax ||
      password.find('\n') != std::string::npos) {
    return invalid("the password file " + path + " does not hold one line with a password");
  }
  return password;
}

}  // namespace

Result<RedisAddress> resolve_login(const RedisLogin& login) {
  auto address = parse_redis_url(login.url);
  if (!address) {
    return invalid(login.option + ": " + address.error().message);
  }
  if (!login.password_file.empty() && !address->password.empty()) {
    return invalid(login.option + " holds a password and " + login.option +
                   "-password-file names another: leave one of them out");
  }
  if (!login.password_file.empty()) {
    auto password = read_password(login.password_file);
    if (!password) {
      return password.error();
    }
    address->password = std::move(*password);
  } else if (address->password.empty() && login.environment) {
    address->password = *login.environment;
  }
  if (!address->user.empty() && address->password.empty()) {
    return invalid(login.option +
                   " names a user without a password: put it into the URL, into the "
                   "file that " +
                   login.option + "-password-file names, or into the environment");
  }
  return address;
}

}  // namespace tessera::coordinator
