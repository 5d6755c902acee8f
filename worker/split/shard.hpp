#pragma once

#include "common/model/settings/model_config.hpp"
#include "common/result.hpp"
#include "kernels/types.hpp"

namespace tessera::worker {

// Which part of every weight one rank of a tensor-parallel group holds. Query, key and value heads,
// and gate and up features, are rows of their matrices and are dealt out in blocks: rank r of N
// takes block r of N. The products after them (o and down) take the same features as columns, so
// that each rank multiplies what it made itself and the ranks' outputs add up to the whole.
// Embedding table and norms are on every rank. Pure functions; they only move pointers.
struct RankShare {
  int rank = 0;
  int size = 1;
};

inline constexpr int kGroupSizeMax = 8;

// Whether, and along what, a group splits its work.
enum class GroupSplit : std::uint8_t {
  kNone,    // one device alone
  kTensor,  // weights: each rank has its heads and features, and all tokens
  kTokens,  // tokens: each rank has all weights, and its part of the batch
};

// Ok when every rank gets whole heads, with the query heads beside their key head, and feature
// counts that the kernels take (multiples of 8). Otherwise one sentence that says what divides by
// what.
Result<void> check_tensor_split(const ModelConfig& config, int size);

// What one rank computes. Requires check_tensor_split(config, size).ok().
kernels::EncoderShape shard_shape(const ModelConfig& config, int size);

// Block share.rank of the rows (q, k, v, gate, up) or of the columns (o, down). Requires that the
// size divides them.
kernels::MatrixSlice row_share(const kernels::MatrixSlice& whole, const RankShare& share);
kernels::MatrixSlice column_share(const kernels::MatrixSlice& whole, const RankShare& share);

// Bytes of weights, in the numeric type given, that one rank holds.
std::int64_t shard_weight_bytes(const ModelConfig& config, int size, kernels::DType type);

}  // namespace tessera::worker
