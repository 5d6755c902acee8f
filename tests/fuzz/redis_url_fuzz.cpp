// Any bytes as a Redis URL: refused with a sentence, or an address of one server that its printed
// form names, too, and that never shows the user's or the password's bytes.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "coordinator/redis_url.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera::coordinator;
  const std::string_view url(reinterpret_cast<const char*>(data), size);
  (void)hide_secrets(std::string(url));
  const auto address = parse_redis_url(url);
  if (!address) {
    if (address.error().message.empty()) {
      std::abort();
    }
    return 0;
  }
  if (address->host.empty() == address->socket.empty() || address->port < 1 ||
      address->port > 65535 || address->database < 0) {
    std::abort();
  }
  RedisAddress bare = *address;
  bare.user.clear();
  bare.password.clear();
  if (bare.printable() != address->printable()) {
    std::abort();
  }
  return 0;
}
