#include "clients/gateway/auth/key_file.hpp"

#include <sodium.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include "clients/gateway/http/request_id.hpp"
#include "common/check.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::gateway {
namespace {

constexpr std::string_view kHashTag = "blake2b:";
constexpr std::string_view kTenantTag = "tenant=";
constexpr std::string_view kQuotaTag = "tokens-per-minute=";
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kKeyCharsMax = 512;

using Hash = std::array<unsigned char, 32>;

Hash hash_of(std::string_view key) {
  Hash hash{};
  CHECK(crypto_generichash(hash.data(), hash.size(),
                           reinterpret_cast<const unsigned char*>(key.data()), key.size(), nullptr,
                           0) == 0);
  return hash;
}

std::string hex_of(const Hash& hash) {
  std::string text(2 * hash.size() + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), hash.data(), hash.size());
  text.pop_back();
  return text;
}

bool read_hash(std::string_view hex, Hash& hash) {
  std::size_t length = 0;
  return hex.size() == 2 * hash.size() &&
         sodium_hex2bin(hash.data(), hash.size(), hex.data(), hex.size(), nullptr, &length,
                        nullptr) == 0 &&
         length == hash.size();
}

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

}  // namespace

Result<KeyRing::Entry> KeyRing::parse_line(std::string_view line) {
  std::istringstream words{std::string(line)};
  std::string hash;
  Entry entry;
  words >> entry.caller.name >> hash;
  if (!hash.starts_with(kHashTag) ||
      !read_hash(std::string_view(hash).substr(kHashTag.size()), entry.hash)) {
    return wrong("wants NAME blake2b:HASH with 64 hex digits; --new-key NAME makes a line");
  }
  entry.caller.tenant = entry.caller.name;
  for (std::string word; words >> word;) {
    const std::string_view view = word;
    if (view.starts_with(kTenantTag) && view.size() > kTenantTag.size()) {
      entry.caller.tenant = view.substr(kTenantTag.size());
      continue;
    }
    const std::string_view number =
        view.starts_with(kQuotaTag) ? view.substr(kQuotaTag.size()) : std::string_view();
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(),
                                              entry.caller.tokens_per_minute);
    if (number.empty() || error != std::errc() || end != number.data() + number.size()) {
      return wrong("has '" + word + "', which is neither tenant=NAME nor tokens-per-minute=N");
    }
  }
  if (entry.caller.tenant.size() > protocol::kNameBytesMax) {
    return wrong("has a tenant of more than 256 bytes");
  }
  return entry;
}

Result<KeyRing> KeyRing::parse(std::string_view text) {
  KeyRing ring;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
    if (line.empty() || line.starts_with('#')) {
      continue;
    }
    auto entry = parse_line(line);
    if (!entry) {
      return wrong("line " + std::to_string(number) + " " + entry.error().message);
    }
    if (std::ranges::any_of(ring.entries_, [&](const Entry& other) {
          return other.caller.name == entry->caller.name || other.hash == entry->hash;
        })) {
      return wrong("line " + std::to_string(number) + " repeats a name or a key");
    }
    ring.entries_.push_back(std::move(*entry));
  }
  return ring;
}

Result<KeyRing> KeyRing::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    return Error{ErrorCode::kNotFound, "cannot read the keys' file " + path};
  }
  auto ring = parse(text.str());
  if (!ring) {
    return wrong(path + ": " + ring.error().message);
  }
  if (ring->size() == 0) {
    return wrong(path + " holds no key; --new-key NAME makes a line");
  }
  return ring;
}

const http::Caller* KeyRing::find(std::string_view key) const {
  if (key.empty() || key.size() > kKeyCharsMax) {
    return nullptr;
  }
  const Hash hash = hash_of(key);
  const http::Caller* found = nullptr;
  for (const Entry& entry : entries_) {
    if (sodium_memcmp(entry.hash.data(), hash.data(), hash.size()) == 0) {
      found = &entry.caller;
    }
  }
  return found;
}

Result<NewKey> make_key(const std::string& name) {
  if (name.empty() || name.starts_with('#') || name.size() > protocol::kNameBytesMax ||
      name.find_first_of(" \t\r\n") != std::string::npos) {
    return wrong("a key's name is 1 to 256 bytes without white space");
  }
  NewKey made;
  made.key = "tsk_" + http::random_hex(kKeyBytes);
  made.line = name + " " + std::string(kHashTag) + hex_of(hash_of(made.key));
  return made;
}

}  // namespace tessera::gateway
