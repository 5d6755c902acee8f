#include "common/float16.hpp"

#include <bit>

#include "common/check.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera {
namespace {

#if defined(__x86_64__)
[[gnu::target("avx,f16c")]] std::size_t to_float16_f16c(const float* in, std::uint16_t* out,
                                                        std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), half);
  }
  return i;
}

[[gnu::target("avx,f16c")]] std::size_t from_float16_f16c(const std::uint16_t* in, float* out,
                                                          std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
  }
  return i;
}

bool has_f16c() {
  static const bool has = __builtin_cpu_supports("avx2");  // Every such CPU has F16C, too.
  return has;
}
#else
std::size_t to_float16_f16c(const float*, std::uint16_t*, std::size_t) { return 0; }
std::size_t from_float16_f16c(const std::uint16_t*, float*, std::size_t) { return 0; }
bool has_f16c() { return false; }
#endif

}  // namespace

std::uint16_t to_float16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) {
    return static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13) & 0x1FFU));  // NaN
  }
  if (magnitude >= 0x477FF000U) {  // 65520 and above rounds to infinity.
    return static_cast<std::uint16_t>(sign | 0x7C00U);
  }
  if (magnitude < 0x38800000U) {  // Below 2^-14: subnormal. Adding 0.5 aligns and rounds the bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1U;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000U + 0xFFFU + odd) >> 13));
}

float from_float16(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7FFFU;
  if (magnitude >= 0x7C00U) {  // Infinity, or NaN made quiet as the instruction does.
    const std::uint32_t quiet = magnitude > 0x7C00U ? 0x400000U : 0U;
    return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13) | quiet);
  }
  if (magnitude < 0x400U) {  // Zero and subnormals: magnitude * 2^-24, exact in float32.
    const float value = static_cast<float>(magnitude) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
}

void to_float16(std::span<const float> in, std::span<std::uint16_t> out) {
  CHECK(in.size() == out.size());
  std::size_t i = has_f16c() ? to_float16_f16c(in.data(), out.data(), in.size()) : 0;
  for (; i < in.size(); ++i) {
    out[i] = to_float16(in[i]);
  }
}

void from_float16(std::span<const std::uint16_t> in, std::span<float> out) {
  CHECK(in.size() == out.size());
  std::size_t i = has_f16c() ? from_float16_f16c(in.data(), out.data(), in.size()) : 0;
  for (; i < in.size(); ++i) {
    out[i] = from_float16(in[i]);
  }
}

}  // namespace tessera
