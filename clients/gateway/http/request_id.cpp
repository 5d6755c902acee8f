#include "clients/gateway/http/request_id.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>

#include "common/check.hpp"

namespace tessera::gateway::http {
namespace {

constexpr std::size_t kIdBytesMax = 128;

bool is_sound(std::string_view id) {
  return !id.empty() && id.size() <= kIdBytesMax && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

// One system call serves many ids.
struct RandomBytes {
  std::array<unsigned char, 256> bytes{};
  std::size_t used = 256;
  unsigned char next() {
    if (used == bytes.size()) {
      CHECK(getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
      used = 0;
    }
    return bytes[used++];
  }
};

}  // namespace

std::string random_hex(std::size_t bytes) {
  thread_local RandomBytes random;
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    const unsigned char byte = random.next();
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

std::string request_id_for(std::string_view proposed) {
  return is_sound(proposed) ? std::string(proposed) : "req_" + random_hex(16);
}

}  // namespace tessera::gateway::http
