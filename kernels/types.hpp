#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace tessera::kernels {

// Element types of weights and activations. float16 is one of files only: backends make of it what
// they compute in, bfloat16 by one rounding.
enum class DType : std::uint8_t { kFloat32, kBFloat16, kFloat16 };

constexpr std::size_t size_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }
constexpr std::string_view to_string(DType type) {
  return type == DType::kFloat32 ? "float32" : type == DType::kBFloat16 ? "bfloat16" : "float16";
}

// A float16 by its bits; not for NaN and infinity.
constexpr float float16_value(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  const std::uint32_t magnitude = bits & 0x7FFFU;
  if (magnitude < 0x400U) {  // Subnormal: a multiple of 2^-24.
    const float value = static_cast<float>(magnitude) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13U) + (112U << 23U)));
}
constexpr bool is_finite_float16(std::uint16_t bits) { return (bits & 0x7C00U) != 0x7C00U; }

// Rows of a row-major matrix in host memory (usually a mapped file), without ownership. A tensor-
// parallel rank names its share by `data`, `rows`, `cols` and the full matrix's `row_stride`.
struct MatrixSlice {
  const std::byte* data = nullptr;  // element [0, 0]
  DType type = DType::kBFloat16;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;  // in elements
  std::string_view name{};      // of the tensor, for error messages
};

// How the slices of one weight are laid one after the other.
enum class RowLayout : std::uint8_t {
  kStacked,     // q, k, v: all rows of the first, then all of the second, ...
  kGateUpPair,  // exactly two slices, gate and up; the backend interleaves them as its kernel likes
};

// Part of one sequence, where the GPUs of a group split a batch among themselves: each GPU runs its
// own tokens' queries over the keys and values of all tokens, which the group has gathered.
struct Segment {
  std::int32_t position = 0;  // of the first token in its sequence, a multiple of the alignment
  std::int32_t first_kv = 0;  // row of the sequence's position 0 in the gathered [k | v]
  bool ends = true;           // holds the sequence's last token, so its vector comes from here
};
inline constexpr std::int32_t kSegmentAlignment = 128;
inline constexpr std::int64_t kPartsMax = 32;  // segments of a batch with position > 0

// Parts of sequences run other operations than whole ones, and fewer where none of them ends.
enum class BatchKind : std::uint8_t { kWhole, kParts, kPartsWithoutEnd };

// Sequences packed one behind the other, in host memory, as the graph takes them. With `segments`,
// each of the num_sequences runs of tokens is such a part instead of a whole sequence, and only
// those that end a sequence have a vector, in their order.
struct PackedBatchView {
  std::span<const std::int32_t> input_ids;   // [total_tokens]
  std::span<const std::int32_t> cu_seqlens;  // [num_sequences + 1], from 0 to total_tokens
  std::span<const Segment> segments;         // [num_sequences], or none: whole sequences
  std::int64_t total_tokens() const { return static_cast<std::int64_t>(input_ids.size()); }
  std::int64_t num_sequences() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
  BatchKind kind() const {
    if (segments.empty()) return BatchKind::kWhole;
    return std::ranges::any_of(segments, &Segment::ends) ? BatchKind::kParts
                                                         : BatchKind::kPartsWithoutEnd;
  }
};

struct BatchLimits {
  std::int64_t max_tokens = 0;     // per batch
  std::int64_t max_sequences = 0;  // per batch
  std::int64_t max_seqlen = 0;     // of one sequence
  bool parts = false;              // batches of parts of sequences come, too
};

// Heads of this rank: under tensor parallelism a rank's share of the model's.
struct AttentionShape {
  std::int64_t num_q_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 128;
  std::int64_t q_width() const { return num_q_heads * head_dim; }
  std::int64_t kv_width() const { return num_kv_heads * head_dim; }
  std::int64_t qkv_width() const { return q_width() + 2 * kv_width(); }
};

// What a backend must know of the model to size its own memory; shares of a rank as above.
struct EncoderShape {
  AttentionShape attention;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
};

}  // namespace tessera::kernels
