#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "kernels/types.hpp"

namespace tessera::worker {

// One rank's part of a batch that a group splits along its tokens, every rank holding all weights.
// Short sequences go whole to one rank; one that is too long for that is cut, and its keys and
// values are gathered on all ranks in every layer.
struct TokenShare {
  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> cu_seqlens{0};
  std::vector<kernels::Segment> segments;  // none when the batch has no cut sequence
  std::vector<std::int32_t> kv_rows;       // as Communicator::stage_rows takes them; or none
  std::vector<std::int32_t> sequences;     // place in the batch of each vector of this rank

  kernels::PackedBatchView view() const { return {input_ids, cu_seqlens, segments}; }
};

struct TokenSplit {
  std::vector<TokenShare> ranks;
  bool gathers = false;            // some sequence is cut
  std::int64_t gathered_rows = 0;  // that the largest rank needs
};

struct TokenSplitOptions {
  int size = 1;
  // Cost of one query against one key, the matrix products of one token being 1.
  double pair_cost = 0;
  // Imbalance of the ranks that is accepted before one more sequence is cut.
  double imbalance_max = 0.04;
};

// Arithmetic of attention against that of the matrix products, attention running at 0.75 of their
// rate (640 against 790 TFLOP/s at best on an H200, less on short sequences).
double attention_pair_cost(const ModelConfig& config);

// Balances cost: tokens plus pair_cost times (query, key) pairs. Pieces, the dearest first, go to
// the rank that has least. A long cut sequence makes 2 N equal pieces, of which every rank then
// gets a cheap early and an expensive late one; a shorter one at most N. Pieces start at multiples
// of kSegmentAlignment. Pure, and the same for the same lengths.
TokenSplit split_tokens(const kernels::PackedBatchView& batch, const TokenSplitOptions& options);

// Tokens of a rank that a batch of `total` may need at most: even shares and some play.
std::int64_t split_tokens_per_rank_max(std::int64_t total, int size);

}  // namespace tessera::worker
