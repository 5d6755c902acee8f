#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/base/bf16.hpp"

namespace tessera::kernels::cuda {

// Sequence i's one query q[i] over all its keys: num_keys[i] rows of [k | v] from first_keys[i] on.
// Query heads of a kv head share one read of its keys. Without keys the result is zero.
struct LastAttentionArguments {
  Bf16* out = nullptr;                       // [num_sequences, num_q * 128]
  const Bf16* q = nullptr;                   // [num_sequences, num_q * 128]
  const Bf16* kv = nullptr;                  // [T, 2 * num_kv * 128]
  const std::int32_t* first_keys = nullptr;  // [num_sequences]
  const std::int32_t* num_keys = nullptr;    // [num_sequences]
  std::int64_t num_sequences = 0;
  int num_q = 0;
  int num_kv = 0;
};
void launch_last_attention(const LastAttentionArguments& arguments, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
