#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

namespace tessera::coordinator {

// Tokens per minute of each tenant, as a bucket that holds a minute's worth and fills evenly.
// A request reserves what its bytes suggest when it comes, since its tokens are not known yet, and
// pays what it really had when it is answered; so many requests at once cannot pass for one, and
// nobody pays for a guess. One that asks for more than a minute's worth needs a full bucket and
// leaves a debt. Buckets begin full, with every coordinator.
class QuotaBook {
 public:
  struct Admission {
    bool admitted = false;
    std::uint32_t retry_after_ms = 0;  // Where not.
    protocol::Quota quota;
  };

  // `limit` > 0. A limit that differs from the one before is taken over at once.
  Admission admit(const std::string& tenant, std::uint64_t limit, std::uint64_t estimate,
                  Micros now);
  // Once for each admitted request.
  protocol::Quota settle(const std::string& tenant, std::uint64_t estimate, std::uint64_t tokens,
                         Micros now);
  // Forgets tenants that are owed nothing and owe nothing; call about once a minute.
  void sweep(Micros now);
  std::size_t tenants() const { return buckets_.size(); }

 private:
  struct Bucket {
    std::uint64_t limit = 0;
    double level = 0;  // Tokens; below zero after a request that had more than was thought.
    double reserved = 0;
    Micros filled_at = 0;

    void fill(Micros now);
    double free() const { return level - reserved; }
    std::uint32_t ms_until(double tokens) const;
    protocol::Quota quota() const;
  };

  std::unordered_map<std::string, Bucket> buckets_;
};

// Tokens that the items will have, by their bytes.
std::uint64_t estimate_tokens(const protocol::ItemBlock& items);

}  // namespace tessera::coordinator
