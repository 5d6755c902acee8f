#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "clients/gateway/http/message.hpp"
#include "common/result.hpp"

namespace tessera::gateway {

// API keys by their hashes: a copy of the file gives nobody a key. A key is 32 random bytes, so one
// round of BLAKE2b is as hard to invert as the key is to guess.
//
// A line of the file:   NAME blake2b:HASH [tenant=TENANT] [tokens-per-minute=N]
// Without tenant, the name is the tenant. Empty lines and those that begin with # say nothing.
class KeyRing {
 public:
  // kInvalidArgument names the line. A name or hash that comes twice is an error.
  static Result<KeyRing> parse(std::string_view text);
  static Result<KeyRing> load(const std::string& path);

  // Whose key this is; nothing for one that is not known. Takes the same time for every key.
  const http::Caller* find(std::string_view key) const;
  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::array<unsigned char, 32> hash{};
    http::Caller caller;
  };
  static Result<Entry> parse_line(std::string_view line);
  std::vector<Entry> entries_;
};

struct NewKey {
  std::string key;   // To be given to its user, once.
  std::string line;  // For the file.
};
// kInvalidArgument for a name with white space.
Result<NewKey> make_key(const std::string& name);

}  // namespace tessera::gateway
