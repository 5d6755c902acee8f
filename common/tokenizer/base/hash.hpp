#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace tessera::tokenizer {

__extension__ using Wide = unsigned __int128;

// Folds the 128-bit product of two words: one multiplication, every input bit reaches every output
// bit well enough for a table of a power of two.
inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const auto product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

inline constexpr std::uint64_t kMix1 = 0x9E3779B97F4A7C15U;
inline constexpr std::uint64_t kMix2 = 0xD6E8FEB86659FD93U;

inline std::uint64_t load_u64(const char* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// A hash of any number of bytes, for tables in memory only: the value depends on the byte order.
inline std::uint64_t hash_bytes(std::string_view bytes) {
  std::uint64_t state = kMix1 ^ bytes.size();
  while (bytes.size() > 16) {
    state = mix(load_u64(bytes.data()) ^ kMix2, load_u64(bytes.data() + 8) ^ state);
    bytes.remove_prefix(16);
  }
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  if (bytes.size() >= 8) {
    low = load_u64(bytes.data());
    high = load_u64(bytes.data() + bytes.size() - 8);
  } else {
    std::memcpy(&low, bytes.data(), bytes.size());
  }
  return mix(mix(low ^ kMix2, high ^ state), kMix1);
}

}  // namespace tessera::tokenizer
