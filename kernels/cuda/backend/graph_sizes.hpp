#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/backend.hpp"

namespace tessera::kernels::cuda {

// Which small batches run as recorded graphs, and of what size: pure.

// The rows and vectors that a recording covers; batches are filled up to them.
struct GraphSize {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  auto operator<=>(const GraphSize&) const = default;
};

// The smallest recording that holds a batch of these tokens in these sequences and one sequence of
// filler; none for large batches, and for those where every sequence has one token: rows of tokens
// and rows of sequences could not be told apart there.
std::optional<GraphSize> graph_size(std::int64_t tokens, std::int64_t sequences,
                                    const BatchLimits& limits);

// For each recording worth having a batch that takes it; sequences of fewer than two tokens on
// average, which texts that end with a token of their own hardly are, get none. Parts get theirs
// up to three in a batch; parts without an end have a multiple of kSegmentAlignment tokens.
std::vector<RecordedSize> recorded_batches(const BatchLimits& limits);

}  // namespace tessera::kernels::cuda
