#pragma once

// The attention of one tile of queries, after FlashAttention-2 (arXiv 2307.08691): blocks of keys
// are visited once, the row maxima and sums are kept online, nothing larger than a tile is stored.
// Included once per instruction set, as simd.hpp is.

#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/simd.hpp"

namespace tessera::kernels::cpu {
namespace {

constexpr std::int64_t kHeadWords = kHeadDim / kWordElements;
constexpr std::int64_t kKeyWords = kTileKeys / kWordElements;
// Four rows by four vectors fill half of the 32 AVX-512 registers; other sets have 16 half as wide.
#if defined(__AVX512F__)
constexpr int kVectorsMax = 4;
#else
constexpr int kVectorsMax = 1;
#endif

struct Product {
  float* c;
  std::int64_t c_stride;
  const std::uint32_t* a;  // rows of words
  std::int64_t a_stride;
  const std::uint32_t* b;  // [words][columns]
  std::int64_t b_stride;
  std::int64_t words;
};

// c[R, V * 16] = a b, or += where kAdd.
template <int R, int V, bool kAdd>
TESSERA_INLINE void multiply_block(const Product& p) {
  Floats total[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      total[r][v] = kAdd ? load(p.c + r * p.c_stride + v * kLanes) : Floats{};
    }
  }
  for (std::int64_t k = 0; k < p.words; ++k) {
    Words b[V];  // Read one by one: copied as a whole the compiler sends them through the stack.
    for (int v = 0; v < V; ++v) b[v] = load_words(p.b + k * p.b_stride + v * kLanes);
    for (int r = 0; r < R; ++r) {
      std::uint32_t a;  // Copied, because the words are stored as activations.
      std::memcpy(&a, p.a + r * p.a_stride + k, sizeof(a));
      for (int v = 0; v < V; ++v) total[r][v] = dot_words(total[r][v], a, b[v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) store(p.c + r * p.c_stride + v * kLanes, total[r][v]);
  }
}

template <int V, bool kAdd>
TESSERA_INLINE void multiply_columns(Product p, std::int64_t rows) {
  for (; rows >= 4; rows -= 4, p.a += 4 * p.a_stride, p.c += 4 * p.c_stride) {
    multiply_block<4, V, kAdd>(p);
  }
  for (; rows > 0; --rows, p.a += p.a_stride, p.c += p.c_stride) {
    multiply_block<1, V, kAdd>(p);
  }
}

// c[rows, columns] = a b or += a b; columns a multiple of 16.
template <bool kAdd>
void multiply(Product p, std::int64_t rows, std::int64_t columns) {
  for (; columns >= kVectorsMax * kLanes; columns -= kVectorsMax * kLanes) {
    multiply_columns<kVectorsMax, kAdd>(p, rows);
    p.b += kVectorsMax * kLanes;
    p.c += kVectorsMax * kLanes;
  }
  for (; columns > 0; columns -= kLanes) {
    multiply_columns<1, kAdd>(p, rows);
    p.b += kLanes;
    p.c += kLanes;
  }
}

struct TileState {
  alignas(64) float scores[kTileRows * kTileKeys];
  alignas(64) float out[kTileRows * kHeadDim];
  alignas(64) Activation weights[kTileRows * kTileKeys];
  float maximum[kTileRows];
  float total[kTileRows];
};

// Scores to exp2(score - maximum) of one row, whose first `allowed` keys count; earlier sums and
// outputs are scaled down to the new maximum. `width` is a multiple of 16; without kMask all of it
// is allowed.
template <bool kMask>
TESSERA_INLINE void softmax_row(TileState& s, std::int64_t r, std::int64_t allowed,
                                std::int64_t width, float scale) {
  float* scores = s.scores + r * kTileKeys;
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  Floats highest = broadcast(-3.0e38F);
  for (std::int64_t i = 0; i < width; i += kLanes) {
    Floats v = load(scores + i) * scale;
    if (kMask) {
      v = select(lane < (std::int32_t)(allowed - i), v, broadcast(-3.0e38F));
    }
    store(scores + i, v);
    highest = max(highest, v);
  }
  const float row_maximum = largest(highest);
  const float before = s.maximum[r];
  const float maximum = row_maximum > before ? row_maximum : before;
  Floats total{};
  for (std::int64_t i = 0; i < width; i += kLanes) {
    Floats v = exp2(load(scores + i) - maximum);
    if (kMask) {
      v = select(lane < (std::int32_t)(allowed - i), v, Floats{});
    }
    total += v;
    store_activation(s.weights + r * kTileKeys + i, v);
  }
  if (maximum == before) {
    s.total[r] += sum(total);
    return;
  }
  const Floats shrink = exp2(broadcast(before - maximum));
  s.total[r] = s.total[r] * shrink[0] + sum(total);
  s.maximum[r] = maximum;
  for (std::int64_t i = 0; i < kHeadDim; i += kLanes) {
    store(s.out + r * kHeadDim + i, load(s.out + r * kHeadDim + i) * shrink);
  }
}

void attend(const AttendArguments& a) {
  constexpr float kScale = 1.44269504F * 0.08838834764F;  // log2(e) / sqrt(128)
  static_assert(kHeadDim == 128);
  TileState s;
  for (std::int64_t r = 0; r < a.rows; ++r) {
    s.maximum[r] = -3.0e38F;
    s.total[r] = 0;
  }
  std::memset(s.out, 0, (std::size_t)(a.rows * kHeadDim) * sizeof(float));
  const std::int64_t keys_end = a.position + a.rows;
  for (std::int64_t first = 0; first < keys_end; first += kTileKeys) {
    const std::int64_t left = keys_end - first;
    const std::int64_t width = left < kTileKeys ? (left + kLanes - 1) / kLanes * kLanes : kTileKeys;
    const std::int64_t block = first / kTileKeys;
    multiply<false>({.c = s.scores,
                     .c_stride = kTileKeys,
                     .a = static_cast<const std::uint32_t*>(a.q),
                     .a_stride = a.q_stride / kWordElements,
                     .b = a.head.keys + block * kHeadWords * kTileKeys,
                     .b_stride = kTileKeys,
                     .words = kHeadWords},
                    a.rows, width);
    const bool all_allowed = first + width <= a.position + 1;
    for (std::int64_t r = 0; r < a.rows; ++r) {
      if (all_allowed) {
        softmax_row<false>(s, r, width, width, kScale);
      } else {
        softmax_row<true>(s, r, a.position + r + 1 - first, width, kScale);
      }
    }
    multiply<true>({.c = s.out,
                    .c_stride = kHeadDim,
                    .a = reinterpret_cast<const std::uint32_t*>(s.weights),
                    .a_stride = kKeyWords,
                    .b = a.head.values + block * kKeyWords * kHeadDim,
                    .b_stride = kHeadDim,
                    .words = width / kWordElements},
                   a.rows, kHeadDim);
  }
  auto* out = static_cast<Activation*>(a.out);
  for (std::int64_t r = 0; r < a.rows; ++r, out += a.out_stride) {
    const Floats scale = broadcast(1.0F / s.total[r]);
    for (std::int64_t i = 0; i < kHeadDim; i += kLanes) {
      store_activation(out + i, load(s.out + r * kHeadDim + i) * scale);
    }
  }
}

// One block of keys: a transposition of 32-bit words.
TESSERA_INLINE void pack_keys(std::uint32_t* to, const Activation* k, std::int64_t stride,
                              std::int64_t keys) {
  for (std::int64_t key = 0; key < keys; ++key) {
    std::uint32_t words[kHeadWords];
    std::memcpy(words, k + key * stride, sizeof(words));
    for (std::int64_t w = 0; w < kHeadWords; ++w) to[w * kTileKeys + key] = words[w];
  }
}

// One block of values: neighbouring keys side by side in a word.
TESSERA_INLINE void pack_values(std::uint32_t* to, const Activation* v, std::int64_t stride,
                                std::int64_t keys) {
  auto* elements = reinterpret_cast<Activation*>(to);
  for (std::int64_t key = 0; key < keys; ++key) {
    Activation* line = elements + key / kWordElements * kHeadDim * kWordElements;
    for (std::int64_t i = 0; i < kHeadDim; ++i) {
      line[i * kWordElements + key % kWordElements] = v[key * stride + i];
    }
  }
}

void pack_head(const PackedHead& out, const void* k, const void* v, std::int64_t stride,
               std::int64_t seqlen) {
  const auto* key_rows = static_cast<const Activation*>(k);
  const auto* value_rows = static_cast<const Activation*>(v);
  std::uint32_t *keys_to = out.keys, *values_to = out.values;
  constexpr std::size_t kBlockBytes = (std::size_t)(kTileKeys * kHeadWords) * sizeof(std::uint32_t);
  for (std::int64_t first = 0; first < seqlen; first += kTileKeys) {
    const std::int64_t keys = seqlen - first < kTileKeys ? seqlen - first : kTileKeys;
    if (keys < kTileKeys) {  // Zeros, because 0 * garbage may be NaN.
      std::memset(keys_to, 0, kBlockBytes);
      std::memset(values_to, 0, kBlockBytes);
    }
    pack_keys(keys_to, key_rows + first * stride, stride, keys);
    pack_values(values_to, value_rows + first * stride, stride, keys);
    keys_to += kHeadWords * kTileKeys;
    values_to += kKeyWords * kHeadDim;
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu
