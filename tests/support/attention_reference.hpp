#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/types.hpp"

namespace tessera::testing {

inline float bf16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// Causal grouped-query attention in double precision of one token under one head: [head_dim].
// `qkv` is [T, q | k | v] in bf16; the token's sequence starts at token `first`.
inline std::vector<double> attention_reference(const kernels::AttentionShape& shape,
                                               std::span<const std::uint16_t> qkv,
                                               std::int64_t first, std::int64_t token,
                                               std::int64_t head) {
  const std::int64_t dim = shape.head_dim;
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return qkv.data() + row * shape.qkv_width() + column;
  };
  const std::uint16_t* q = at(token, head * dim);
  const std::int64_t k_column =
      shape.q_width() + head / (shape.num_q_heads / shape.num_kv_heads) * dim;
  std::vector<double> weights;
  for (std::int64_t key = first; key <= token; ++key) {
    const std::uint16_t* k = at(key, k_column);
    double dot = 0;
    for (std::int64_t i = 0; i < dim; ++i) {
      dot += static_cast<double>(bf16_to_float(q[i])) * bf16_to_float(k[i]);
    }
    weights.push_back(dot / std::sqrt(static_cast<double>(dim)));
  }
  const double maximum = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& w : weights) sum += w = std::exp(w - maximum);
  std::vector<double> out(static_cast<std::size_t>(dim));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::uint16_t* v = at(first + static_cast<std::int64_t>(i), k_column + shape.kv_width());
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += weights[i] / sum * bf16_to_float(v[d]);
  }
  return out;
}

}  // namespace tessera::testing
