#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/settings/model_config.hpp"

namespace tessera {

// One line of a printed memory sum.
struct MemoryItem {
  std::string what;
  std::uint64_t bytes = 0;
  bool page_locked = false;  // of the host; else on the device
};

std::uint64_t total_bytes(const std::vector<MemoryItem>& items);
std::uint64_t device_bytes(const std::vector<MemoryItem>& items);
// "  1.19 GB  weights ..." a line each, and the total below; page-locked memory is marked.
std::string format_memory(const std::vector<MemoryItem>& items);

// Tokens of a batch that overtakes a running one.
inline constexpr std::int64_t kExpressTokensMax = 1024;

struct MemoryEstimateOptions {
  std::int64_t max_batch_tokens = 0;
  std::int64_t max_sequences = 0;
  std::int64_t ranks = 1;  // tensor-parallel group size; must divide the kv heads
  std::int64_t express_tokens = kExpressTokensMax;  // no more than max_batch_tokens are taken
  std::int64_t gathered_tokens = 0;  // of the group, where it splits batches along their tokens
  std::uint64_t weight_bytes = 2;    // per element of the matrices and the table
  std::uint64_t activation_bytes = 2;
  std::uint64_t residual_bytes = 4;
};

// Bytes of the encoder's activations on one rank, a field per buffer. T = max_batch_tokens rounded
// up to kRowMultiple, n = max_sequences likewise; one multiple more where weights are split, for
// the second half of a batch; and behind them the rows of an express batch.
struct WorkspaceBytes {
  std::uint64_t x = 0;                 // [T, hidden] residual stream
  std::uint64_t qkv = 0;               // [T, q | k | v] of this rank
  std::uint64_t attention = 0;         // [T, q_width] of this rank
  std::uint64_t mlp = 0;               // [T, intermediate] of this rank
  std::uint64_t x_last = 0;            // [n, hidden] residual stream of last tokens
  std::uint64_t q_last = 0;            // [n, q_width] of this rank
  std::uint64_t partial = 0;           // [T, hidden] where weights are split, else none
  std::uint64_t mean_squares = 0;      // [T] float32 where weights are split, else none
  std::uint64_t gathered = 0;          // [gathered_tokens, k | v] where tokens are split, else none
  std::uint64_t express_gathered = 0;  // [express tokens, k | v] likewise
  std::int64_t express_row = 0;        // where the express batch's rows begin
  std::int64_t express_last_row = 0;   // likewise, of last tokens
};

// Rows that matrix products may round up to without leaving a buffer.
inline constexpr std::int64_t kRowMultiple = 256;

WorkspaceBytes workspace_bytes(const ModelConfig& config, const MemoryEstimateOptions& options);

// The sum for one rank without what a backend takes for itself: weights, then activations. q, k, v,
// gate and up are split by rows and o and down by columns; table and norms are on every rank.
std::vector<MemoryItem> estimate_memory(const ModelConfig& config,
                                        const MemoryEstimateOptions& options);

}  // namespace tessera
