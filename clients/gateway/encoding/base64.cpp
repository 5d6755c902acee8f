#include "clients/gateway/encoding/base64.hpp"

#include <array>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera::gateway {
namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Two characters for each 12 bits, so that three bytes are two look-ups in 8 KiB.
constexpr std::array<std::uint16_t, 4096> make_pairs() {
  std::array<std::uint16_t, 4096> pairs{};
  for (std::uint32_t i = 0; i < pairs.size(); ++i) {
    const auto first = static_cast<unsigned char>(kAlphabet[i >> 6U]);
    const auto second = static_cast<unsigned char>(kAlphabet[i & 63U]);
    pairs[i] = static_cast<std::uint16_t>(first | (second << 8U));  // Little-endian in memory.
  }
  return pairs;
}
constexpr auto kPairs = make_pairs();

void encode_three(const unsigned char* in, char* out) {
  const std::uint32_t bits = (std::uint32_t{in[0]} << 16U) | (std::uint32_t{in[1]} << 8U) | in[2];
  std::memcpy(out, &kPairs[bits >> 12U], 2);
  std::memcpy(out + 2, &kPairs[bits & 4095U], 2);
}

// Six bytes by one load of eight: four look-ups and one store.
void encode_six(const unsigned char* in, char* out) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, in, sizeof(bits));
  bits = __builtin_bswap64(bits);
  const std::uint64_t pairs = std::uint64_t{kPairs[bits >> 52U]} |
                              (std::uint64_t{kPairs[(bits >> 40U) & 4095U]} << 16U) |
                              (std::uint64_t{kPairs[(bits >> 28U) & 4095U]} << 32U) |
                              (std::uint64_t{kPairs[(bits >> 16U) & 4095U]} << 48U);
  std::memcpy(out, &pairs, sizeof(pairs));
}

#if defined(__x86_64__)
// 24 bytes to 32 characters at a time, of which 28 bytes are read. Gives the bytes that are done.
[[gnu::target("avx2")]] std::size_t encode_avx2(const unsigned char* in, std::size_t count,
                                                char* out) {
  // Three bytes a, b, c become the 32-bit word [b a c b], lowest byte first: the 16-bit half (a b)
  // holds the first two sixes of bits, (b c) the other two.
  const __m256i spread =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10));
  // What to add to a six of bits, by its class: 0 is a to z, 1 to 10 digits, 11 +, 12 /, 13 A to Z.
  const __m256i offsets = _mm256_broadcastsi128_si256(
      _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                    '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0));
  const auto load = [](const unsigned char* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  };
  std::size_t done = 0;
  for (; done + 28 <= count; done += 24, out += 32) {
    const __m256i words =
        _mm256_shuffle_epi8(_mm256_set_m128i(load(in + done + 12), load(in + done)), spread);
    // Each six of bits to a byte of its own: the first and third by a shift to the right, which a
    // multiplication's upper half is, the second and fourth by one to the left.
    const __m256i first_third = _mm256_mulhi_epu16(
        _mm256_and_si256(words, _mm256_set1_epi32(0x0FC0FC00)), _mm256_set1_epi32(0x04000040));
    const __m256i second_fourth = _mm256_mullo_epi16(
        _mm256_and_si256(words, _mm256_set1_epi32(0x003F03F0)), _mm256_set1_epi32(0x01000010));
    const __m256i sixes = _mm256_or_si256(first_third, second_fourth);
    const __m256i is_capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), sixes);
    const __m256i classes = _mm256_or_si256(_mm256_subs_epu8(sixes, _mm256_set1_epi8(51)),
                                            _mm256_and_si256(is_capital, _mm256_set1_epi8(13)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm256_add_epi8(sixes, _mm256_shuffle_epi8(offsets, classes)));
  }
  return done;
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}
#else
std::size_t encode_avx2(const unsigned char*, std::size_t, char*) { return 0; }
bool has_avx2() { return false; }
#endif

}  // namespace

void append_base64(std::span<const std::byte> bytes, std::string& out) {
  const std::size_t begin = out.size();
  out.resize(begin + base64_length(bytes.size()));
  char* to = out.data() + begin;
  const auto* from = reinterpret_cast<const unsigned char*>(bytes.data());
  const std::size_t done = has_avx2() ? encode_avx2(from, bytes.size(), to) : 0;
  from += done;
  to += done / 3 * 4;
  std::size_t left = bytes.size() - done;
  for (; left >= 8; left -= 6, from += 6, to += 8) {
    encode_six(from, to);
  }
  for (; left >= 3; left -= 3, from += 3, to += 4) {
    encode_three(from, to);
  }
  if (left > 0) {
    const unsigned char last[3] = {from[0], left == 2 ? from[1] : static_cast<unsigned char>(0), 0};
    encode_three(last, to);
    to[3] = '=';
    if (left == 1) {
      to[2] = '=';
    }
  }
}

}  // namespace tessera::gateway
