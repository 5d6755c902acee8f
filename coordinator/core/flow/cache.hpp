#pragma once

#include <cstddef>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>

#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/embedding.hpp"

namespace tessera::coordinator {

// Least recently used embeddings, bounded in bytes.
class LruCache {
 public:
  explicit LruCache(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  // nullptr on a miss; a hit becomes the most recently used.
  EmbeddingPtr find(const CacheKey& key);
  void insert(const CacheKey& key, EmbeddingPtr embedding);
  bool erase(const CacheKey& key);
  std::size_t bytes() const { return bytes_; }
  std::size_t size() const { return index_.size(); }

 private:
  struct Entry {
    CacheKey key;
    EmbeddingPtr embedding;
  };
  static std::size_t cost(const Embedding& embedding);

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  std::list<Entry> entries_;  // Most recently used first.
  std::unordered_map<CacheKey, std::list<Entry>::iterator, CacheKeyHash> index_;
};

// The first cache level. Queries and jobs have a half each: in a shared LRU a running job would
// push out what users ask for again and again (measured: hit ratio 0.61 falls to 0.34 at ten job
// inserts per query). A query's hit in the jobs' half moves the entry to the queries' half.
class EmbeddingCache {
 public:
  explicit EmbeddingCache(std::size_t bytes_max) : query_(bytes_max / 2), bulk_(bytes_max / 2) {}
  EmbeddingPtr find(const CacheKey& key, protocol::Lane lane);
  void insert(const CacheKey& key, protocol::Lane lane, EmbeddingPtr embedding);
  std::size_t bytes() const { return query_.bytes() + bulk_.bytes(); }

 private:
  LruCache query_;
  LruCache bulk_;
};

// The second level's value: version, width, tokens, tokens cut, the vector, and a checksum over
// these and the key, so that a damaged or misplaced value is a miss and never a wrong vector.
std::vector<std::byte> encode_cache_value(const CacheKey& key, const Embedding& embedding);
std::optional<Embedding> decode_cache_value(const CacheKey& key, std::uint32_t hidden_size,
                                            std::span<const std::byte> value);

}  // namespace tessera::coordinator
