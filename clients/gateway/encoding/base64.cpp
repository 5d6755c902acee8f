#include "clients/gateway/encoding/base64.hpp"

#include <array>
#include <cstdint>
#include <cstring>

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

}  // namespace

void append_base64(std::span<const std::byte> bytes, std::string& out) {
  const std::size_t begin = out.size();
  out.resize(begin + base64_length(bytes.size()));
  char* to = out.data() + begin;
  const auto* from = reinterpret_cast<const unsigned char*>(bytes.data());
  std::size_t left = bytes.size();
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
