#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention/attention_tiles.hpp"

namespace tessera::kernels::cuda {

// Causal grouped-query attention inside each sequence of a packed batch:
//   out[t, h] = softmax(q[t, h] . k[s, h / group] / sqrt(128), over s <= t of the sequence) v[s,
//   ..]
// in bf16 with float32 products, maxima and sums (online softmax after FlashAttention-2,
// arXiv 2307.08691).
struct AttentionArguments {
  __nv_bfloat16* out = nullptr;        // [rows, q_width], 16-byte aligned
  const __nv_bfloat16* qkv = nullptr;  // [rows, q | k | v], 16-byte aligned
  // Rows of `qkv` that may be read, at least the batch's tokens. Rows behind the last token are
  // read but have no effect as long as they are finite; of `out` only the batch's rows are written.
  std::int64_t rows = 0;
  // [rows of the group, k | v] when the batch is made of parts of sequences; else null: in `qkv`.
  const __nv_bfloat16* kv = nullptr;
  std::int64_t kv_rows = 0;    // of `kv` that may be read; finite, like those of `qkv`
  void* tiles = nullptr;       // device copy of what build_attention_tiles wrote
  AttentionTileCounts counts;  // as built, or the bounds of a recorded graph
};

// Queues the kernels on `stream`; nothing is allocated. The same batch gives the same bits on every
// run, and a sequence the same bits in every batch. Two launches may not run at the same time over
// one tile list. Throws FatalError when a launch fails.
void launch_attention(const AttentionPlan& plan, const AttentionArguments& arguments,
                      cudaStream_t stream);

}  // namespace tessera::kernels::cuda
