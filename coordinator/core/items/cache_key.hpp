#pragma once

#include <array>
#include <cstddef>
#include <cstring>

namespace tessera::coordinator {

// The identity of an answer; see KeyHasher.
using CacheKey = std::array<std::byte, 32>;

struct CacheKeyHash {
  std::size_t operator()(const CacheKey& key) const {
    std::size_t hash = 0;  // The key is a hash already.
    std::memcpy(&hash, key.data(), sizeof(hash));
    return hash;
  }
};

}  // namespace tessera::coordinator
