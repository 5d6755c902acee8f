#include "kernels/cuda/backend/graph_sizes.hpp"

#include <algorithm>
#include <array>

#include "kernels/cuda/products/algorithm_cache.hpp"

namespace tessera::kernels::cuda {
namespace {

// Above this many tokens the host queues launches faster than the GPU finishes them, and a graph
// gains nothing.
constexpr std::int64_t kTokensMax = 1024;
constexpr std::array<std::int64_t, 4> kSequences = {4, 16, 64, 256};
// Batches that short are bound by their products' rows, in steps of eight.
constexpr std::int64_t kFineTokensMax = 64;

std::int64_t covering_tokens(std::int64_t tokens) {
  return tokens <= kFineTokensMax ? (tokens + 7) / 8 * 8 : rows_bucket(tokens);
}

}  // namespace

std::optional<GraphSize> graph_size(std::int64_t tokens, std::int64_t sequences,
                                    const BatchLimits& limits) {
  const auto covering = std::ranges::lower_bound(kSequences, sequences + 1);
  if (tokens > kTokensMax || covering == kSequences.end() || tokens == sequences) {
    return std::nullopt;
  }
  const GraphSize size{.tokens = covering_tokens(tokens), .sequences = *covering};
  if (size.tokens > limits.max_tokens || size.sequences > limits.max_sequences) {
    return std::nullopt;
  }
  return size;
}

std::vector<RecordedSize> recorded_batches(const BatchLimits& limits) {
  std::vector<RecordedSize> batches;
  for (std::int64_t tokens = covering_tokens(1); tokens <= kTokensMax;
       tokens = covering_tokens(tokens + 1)) {
    std::int64_t fewest = 1;
    for (const std::int64_t covering : kSequences) {
      const std::int64_t cut = (tokens + limits.max_seqlen - 1) / limits.max_seqlen;
      const RecordedSize batch{.tokens = tokens, .sequences = std::max(fewest, cut)};
      const auto size = graph_size(batch.tokens, batch.sequences, limits);
      if (size == GraphSize{tokens, covering} && 2 * batch.sequences <= tokens) {
        batches.push_back(batch);
      }
      fewest = covering;
    }
    const bool aligned = tokens % kSegmentAlignment == 0;
    if (limits.parts && tokens <= limits.max_seqlen && graph_size(tokens, 1, limits)) {
      batches.push_back({.tokens = tokens, .sequences = 1, .kind = BatchKind::kParts});
      if (aligned) {
        batches.push_back({.tokens = tokens, .sequences = 1, .kind = BatchKind::kPartsWithoutEnd});
      }
    }
  }
  return batches;
}

}  // namespace tessera::kernels::cuda
