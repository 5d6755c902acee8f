#pragma once

// Sixteen floats at a time through the compilers' vector extension: one AVX-512 register, two AVX,
// or four SSE registers, so that one source serves every instruction set. Included only by files
// that are compiled once per set; everything is static, so that no two sets share a function.

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace tessera::kernels::cpu {
namespace {

#define TESSERA_INLINE static inline __attribute__((always_inline))

constexpr std::int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef std::int32_t Ints __attribute__((vector_size(64)));
typedef std::uint32_t Words __attribute__((vector_size(64)));
typedef std::uint16_t Halves __attribute__((vector_size(32)));

TESSERA_INLINE Floats broadcast(float value) { return value - Floats{}; }

TESSERA_INLINE Floats load(const float* from) {
  Floats v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
TESSERA_INLINE void store(float* to, Floats v) { std::memcpy(to, &v, sizeof(v)); }

TESSERA_INLINE Words load_words(const std::uint32_t* from) {
  Words v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

// bf16 is the upper half of a float32.
TESSERA_INLINE Floats load_bf16(const std::uint16_t* from) {
  Halves v;
  std::memcpy(&v, from, sizeof(v));
  return (Floats)(__builtin_convertvector(v, Words) << 16);
}

TESSERA_INLINE Floats select(Ints mask, Floats a, Floats b) {
  return (Floats)(((Ints)a & mask) | ((Ints)b & ~mask));
}

#if defined(__AVX512F__)
TESSERA_INLINE Floats max(Floats a, Floats b) {
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
}
TESSERA_INLINE Floats min(Floats a, Floats b) {
  return (Floats)_mm512_min_ps((__m512)a, (__m512)b);
}
TESSERA_INLINE float sum(Floats v) { return _mm512_reduce_add_ps((__m512)v); }
TESSERA_INLINE float largest(Floats v) { return _mm512_reduce_max_ps((__m512)v); }
#else
TESSERA_INLINE Floats max(Floats a, Floats b) { return select(a > b, a, b); }
TESSERA_INLINE Floats min(Floats a, Floats b) { return select(a < b, a, b); }
TESSERA_INLINE float sum(Floats v) {
  float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (std::int64_t step = kLanes / 2; step > 0; step /= 2) {
    for (std::int64_t i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
}
TESSERA_INLINE float largest(Floats v) {
  float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (std::int64_t step = kLanes / 2; step > 0; step /= 2) {
    for (std::int64_t i = 0; i < step; ++i) {
      lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
    }
  }
  return lanes[0];
}
#endif

// 2^x within 2e-7 of its value for -126 <= x <= 126; below it is 2^-126, that is nothing.
// x = n + f, |f| <= 1/2; 2^f by its Taylor series of degree 7, 2^n through the exponent bits.
TESSERA_INLINE Floats exp2(Floats x) {
  x = min(max(x, broadcast(-126.0F)), broadcast(126.0F));
  const Floats magic = broadcast(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x + magic;
  const Floats f = x - (shifted - magic);
  const Ints n = (Ints)shifted - (Ints)magic;
  Floats p = broadcast(1.5252734e-5F);
  p = p * f + 1.5403530e-4F;
  p = p * f + 1.3333558e-3F;
  p = p * f + 9.6181291e-3F;
  p = p * f + 5.5504109e-2F;
  p = p * f + 2.4022651e-1F;
  p = p * f + 6.9314718e-1F;
  p = p * f + 1.0F;
  return (Floats)((Ints)p + (n << 23));
}

TESSERA_INLINE float reciprocal_sqrt(float value) { return 1.0F / __builtin_sqrtf(value); }

// activations: float32, or bf16 where the processor multiplies it

#if defined(__AVX512BF16__)
typedef std::uint16_t Activation;
constexpr std::int64_t kWordElements = 2;
TESSERA_INLINE Floats load_activation(const Activation* from) { return load_bf16(from); }
// Rounds to nearest even and keeps NaN.
TESSERA_INLINE void store_activation(Activation* to, Floats v) {
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
  std::memcpy(to, &rounded, sizeof(rounded));
}
// sum + a * b over the word's two elements
TESSERA_INLINE Floats dot_words(Floats sum, std::uint32_t a, Words b) {
  const __m512i broadcast_a = _mm512_set1_epi32((int)a);
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)broadcast_a, (__m512bh)b);
}
#else
typedef float Activation;
constexpr std::int64_t kWordElements = 1;
TESSERA_INLINE Floats load_activation(const Activation* from) { return load(from); }
TESSERA_INLINE void store_activation(Activation* to, Floats v) { store(to, v); }
TESSERA_INLINE Floats dot_words(Floats sum, std::uint32_t a, Words b) {
  float value;
  std::memcpy(&value, &a, sizeof(value));
  return sum + value * (Floats)b;
}
#endif

}  // namespace
}  // namespace tessera::kernels::cpu
