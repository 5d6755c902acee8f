#pragma once

#include <sodium.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/resolved_spec.hpp"

namespace tessera::coordinator {

// The identity of an answer: BLAKE2b-256 over a domain tag, the fingerprint, the truncation rule
// and the item, each preceded by its length where that varies. Computed on bytes, so that a hit
// costs no tokenising. One object per unit: what its items share is absorbed once.
class KeyHasher {
 public:
  KeyHasher(std::string_view fingerprint, const ResolvedSpec& spec, std::uint32_t max_tokens);
  CacheKey text_key(std::string_view text) const;
  CacheKey ids_key(std::span<const std::int32_t> ids) const;

 private:
  crypto_generichash_state shared_;
  std::string_view prefix_;  // Of the spec, which must outlive this.
};

}  // namespace tessera::coordinator
