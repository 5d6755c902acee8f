#pragma once

#include <bit>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tessera::tokenizer {

// Sixteen bytes of text and questions about them; an answer has one bit a byte, the lowest first.
// With SSE2 a few instructions each, otherwise a loop.
class ByteChunk {
 public:
  static constexpr unsigned kSize = 16;

#if defined(__SSE2__)
  // `at` has sixteen readable bytes.
  explicit ByteChunk(const char* at)
      : bytes_(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))) {}

  std::uint32_t beyond_ascii() const { return mask(bytes_); }
  std::uint32_t letters() const { return in_range(_mm_or_si128(bytes_, all(0x20)), 'a', 'z'); }
  std::uint32_t digits() const { return in_range(bytes_, '0', '9'); }
  std::uint32_t spaces() const { return mask(_mm_cmpeq_epi8(bytes_, all(' '))); }
  // Tab, line feed, vertical tab, form feed, carriage return.
  std::uint32_t controls() const { return in_range(bytes_, '\t', '\r'); }
  std::uint32_t line_breaks() const {
    return mask(_mm_or_si128(_mm_cmpeq_epi8(bytes_, all('\n')), _mm_cmpeq_epi8(bytes_, all('\r'))));
  }

 private:
  static __m128i all(char byte) { return _mm_set1_epi8(byte); }
  static std::uint32_t mask(__m128i bytes) {
    return static_cast<std::uint32_t>(_mm_movemask_epi8(bytes));
  }
  // Signed comparison, so bytes beyond ASCII are below every range.
  static std::uint32_t in_range(__m128i bytes, char first, char last) {
    return mask(_mm_and_si128(_mm_cmpgt_epi8(bytes, all(static_cast<char>(first - 1))),
                              _mm_cmplt_epi8(bytes, all(static_cast<char>(last + 1)))));
  }

  __m128i bytes_;
#else
  explicit ByteChunk(const char* at) : bytes_(at) {}

  std::uint32_t beyond_ascii() const { return in_range(0x80, 0xFF, 0); }
  std::uint32_t letters() const { return in_range('a', 'z', 0x20); }
  std::uint32_t digits() const { return in_range('0', '9', 0); }
  std::uint32_t spaces() const { return in_range(' ', ' ', 0); }
  std::uint32_t controls() const { return in_range('\t', '\r', 0); }
  std::uint32_t line_breaks() const { return in_range('\n', '\n', 0) | in_range('\r', '\r', 0); }

 private:
  std::uint32_t in_range(unsigned first, unsigned last, unsigned set) const {
    std::uint32_t mask = 0;
    for (unsigned i = 0; i < kSize; ++i) {
      const unsigned byte = static_cast<unsigned char>(bytes_[i]) | set;
      mask |= static_cast<std::uint32_t>(byte >= first && byte <= last) << i;
    }
    return mask;
  }

  const char* bytes_;
#endif
};

// How many bits from `from` up are set without a gap; `mask` has 16 bits.
inline unsigned run_length(std::uint32_t mask, unsigned from) {
  return static_cast<unsigned>(std::countr_one(mask >> from));
}

}  // namespace tessera::tokenizer
