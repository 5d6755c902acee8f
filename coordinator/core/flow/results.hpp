#pragma once

#include <span>

#include "coordinator/core/items/embedding.hpp"
#include "coordinator/core/items/resolved_spec.hpp"

namespace tessera::coordinator {

// How items met the cache.
struct CacheCounts {
  std::uint64_t hits = 0;
  std::uint64_t joins = 0;
  std::uint64_t misses = 0;

  CacheCounts& operator+=(const CacheCounts& other) {
    hits += other.hits;
    joins += other.joins;
    misses += other.misses;
    return *this;
  }
};

// The answer for items that have all ended, in their order: every vector cut to the wanted width,
// made unit length and in the wanted type. A full-width float16 answer is the stored vector, bit
// for bit.
protocol::ResultBlock assemble(std::span<const Outcome> outcomes, const ResolvedSpec& spec,
                               const CacheCounts& counts);

}  // namespace tessera::coordinator
