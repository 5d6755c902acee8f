#include "coordinator/core/flow/cache.hpp"

#include <sodium.h>

#include <cstring>

namespace tessera::coordinator {
namespace {

// What a map node, a list node and the shared pointer's block take beside the values.
constexpr std::size_t kEntryOverheadBytes = 224;

constexpr std::uint32_t kValueVersion = 1;
struct ValueHeader {
  std::uint32_t version;
  std::uint32_t hidden_size;
  std::uint32_t tokens;
  std::uint32_t tokens_cut;
};
constexpr std::size_t kChecksumBytes = 16;

void checksum(const CacheKey& key, std::span<const std::byte> content, unsigned char* out) {
  crypto_generichash(out, kChecksumBytes, reinterpret_cast<const unsigned char*>(content.data()),
                     content.size(), reinterpret_cast<const unsigned char*>(key.data()),
                     key.size());
}

}  // namespace

std::size_t LruCache::cost(const Embedding& embedding) {
  return embedding.values.size() * sizeof(std::uint16_t) + kEntryOverheadBytes;
}

EmbeddingPtr LruCache::find(const CacheKey& key) {
  const auto found = index_.find(key);
  if (found == index_.end()) {
    return nullptr;
  }
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->embedding;
}

bool LruCache::erase(const CacheKey& key) {
  const auto found = index_.find(key);
  if (found == index_.end()) {
    return false;
  }
  bytes_ -= cost(*found->second->embedding);
  entries_.erase(found->second);
  index_.erase(found);
  return true;
}

void LruCache::insert(const CacheKey& key, EmbeddingPtr embedding) {
  const std::size_t bytes = cost(*embedding);
  if (bytes > bytes_max_) {
    return;
  }
  erase(key);
  while (bytes_ + bytes > bytes_max_) {
    erase(CacheKey(entries_.back().key));
  }
  entries_.push_front({key, std::move(embedding)});
  index_.emplace(key, entries_.begin());
  bytes_ += bytes;
}

EmbeddingPtr EmbeddingCache::find(const CacheKey& key, protocol::Lane lane) {
  if (EmbeddingPtr hit = query_.find(key)) {
    return hit;
  }
  EmbeddingPtr hit = bulk_.find(key);
  if (hit && lane == protocol::Lane::kInteractive) {
    bulk_.erase(key);
    query_.insert(key, hit);
  }
  return hit;
}

void EmbeddingCache::insert(const CacheKey& key, protocol::Lane lane, EmbeddingPtr embedding) {
  (lane == protocol::Lane::kInteractive ? query_ : bulk_).insert(key, std::move(embedding));
}

std::vector<std::byte> encode_cache_value(const CacheKey& key, const Embedding& embedding) {
  const ValueHeader header{.version = kValueVersion,
                           .hidden_size = static_cast<std::uint32_t>(embedding.values.size()),
                           .tokens = embedding.tokens,
                           .tokens_cut = embedding.tokens_cut};
  const std::size_t vector_bytes = embedding.values.size() * sizeof(std::uint16_t);
  const std::size_t content_bytes = sizeof(header) + vector_bytes;
  std::vector<std::byte> value(content_bytes + kChecksumBytes);
  std::memcpy(value.data(), &header, sizeof(header));
  std::memcpy(value.data() + sizeof(header), embedding.values.data(), vector_bytes);
  checksum(key, std::span(value).first(content_bytes),
           reinterpret_cast<unsigned char*>(value.data() + content_bytes));
  return value;
}

std::optional<Embedding> decode_cache_value(const CacheKey& key, std::uint32_t hidden_size,
                                            std::span<const std::byte> value) {
  const std::size_t vector_bytes = std::size_t{hidden_size} * sizeof(std::uint16_t);
  const std::size_t content_bytes = sizeof(ValueHeader) + vector_bytes;
  if (value.size() != content_bytes + kChecksumBytes) {
    return std::nullopt;
  }
  ValueHeader header{};
  std::memcpy(&header, value.data(), sizeof(header));
  unsigned char expected[kChecksumBytes];
  checksum(key, value.first(content_bytes), expected);
  if (header.version != kValueVersion || header.hidden_size != hidden_size ||
      std::memcmp(expected, value.data() + content_bytes, kChecksumBytes) != 0) {
    return std::nullopt;
  }
  Embedding embedding{.tokens = header.tokens, .tokens_cut = header.tokens_cut, .values = {}};
  embedding.values.resize(hidden_size);
  std::memcpy(embedding.values.data(), value.data() + sizeof(header), vector_bytes);
  return embedding;
}

}  // namespace tessera::coordinator
