#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/types.hpp"

namespace tessera::kernels::cpu {

inline constexpr std::int64_t kHeadDim = 128;
inline constexpr std::int64_t kTileRows = 64;  // query positions of one attention tile
inline constexpr std::int64_t kTileKeys = 64;  // keys of one packed block

// Keys and values of one kv head of one sequence, in blocks of kTileKeys keys (the last one padded
// with zeros), laid out so that the tile products read vectors and broadcast 32-bit words: a word
// is one float32 or a pair of neighbouring bf16 along the summed dimension.
//   keys:   per block [head_dim words][kTileKeys]      values: per block [key words][head_dim]
struct PackedHead {
  std::uint32_t* keys = nullptr;
  std::uint32_t* values = nullptr;
};
// Bytes of `keys`, and of `values`, for a sequence.
constexpr std::size_t packed_head_bytes(std::int64_t seqlen, DType type) {
  const std::int64_t blocks = (seqlen + kTileKeys - 1) / kTileKeys;
  return static_cast<std::size_t>(blocks * kTileKeys * kHeadDim) * size_of(type);
}

struct AttendArguments {
  const void* q = nullptr;  // first row of the tile, kHeadDim wide, activation type
  void* out = nullptr;      // likewise
  std::int64_t q_stride = 0, out_stride = 0;  // in elements
  std::int64_t rows = 0;                      // at most kTileRows
  std::int64_t position = 0;                  // of the first row in its sequence
  PackedHead head;
};

// The operations on rows and attention tiles, compiled once per instruction set. `activation` is
// the type of what is called activation below; weights of norms, x and products are float32.
// Every row is computed alone: the same input gives the same bits wherever it lies in a batch.
struct RowKernels {
  std::string_view name;  // "avx512_bf16", "avx512", "avx2", "generic"
  DType activation = DType::kFloat32;

  // x = row, of a table of `type`
  void (*embed)(float* x, const void* row, DType type, std::int64_t width);
  // out = x / sqrt(mean(x^2) + eps) * weight                              out: activation
  void (*rms_norm)(void* out, const float* x, const float* weight, std::int64_t width, float eps);
  // One head: RMSNorm, then the rotation of halves by cos_sin [cos 64 | sin 64].  out: activation
  void (*norm_rope)(void* out, const float* head, const float* weight, const float* cos_sin,
                    float eps);
  void (*store)(void* out, const float* in, std::int64_t width);  // out: activation
  void (*add)(float* x, const float* in, std::int64_t width);     // x += in
  // out = gate / (1 + exp(-gate)) * up                                     out: activation
  void (*swiglu)(void* out, const float* gate, const float* up, std::int64_t width);
  // out = RMSNorm(x), or its unit vector; returns 0 where a value is NaN or Inf or all are 0.
  std::uint8_t (*pool)(float* out, const float* x, const float* weight, std::int64_t width,
                       float eps, bool unit);

  // k, v: [seqlen] rows of activations, `stride` elements apart.
  void (*pack_head)(const PackedHead& out, const void* k, const void* v, std::int64_t stride,
                    std::int64_t seqlen);
  // Causal attention of one tile of queries over keys 0 .. their own position, by online softmax.
  void (*attend)(const AttendArguments& arguments);
};

// The sets that this processor runs and that were compiled, best first; the last one is "generic".
// Only avx512_bf16 has bf16 activations.
std::span<const RowKernels* const> usable_row_kernels();

// The best set for a weight type: bf16 falls back to a float32 set where the processor lacks it.
const RowKernels& best_row_kernels(DType weight_type);

}  // namespace tessera::kernels::cpu
