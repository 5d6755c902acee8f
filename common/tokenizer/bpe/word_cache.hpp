#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "common/tokenizer/base/hash.hpp"
#include "common/tokenizer/base/page_memory.hpp"

namespace tessera::tokenizer {

// A piece of at most 8 * kWords - 1 bytes as words: the bytes, zeros, and the length as last byte.
template <unsigned kWords>
using PieceKey = std::array<std::uint64_t, kWords>;

// From a piece to its ids, for pieces that fit a key: one table of whole entries, so that a hit
// reads one cache line. Never wrong, only forgetful: a new entry replaces an older one of its set.
// One thread.
template <unsigned kWords, unsigned kIds, unsigned kWays, unsigned kSetBits>
class WordCache {
  static_assert(std::endian::native == std::endian::little, "keys are compared as words");

 public:
  static constexpr std::size_t kMostBytes = 8 * kWords - 1;
  // A hit writes this many ids, of which `count` are valid.
  static constexpr std::size_t kRoom = kIds;

  WordCache() : sets_(std::size_t{1} << kSetBits) {}

  // Writes the ids of the piece to `out` and returns the end of them; nullptr when the piece is not
  // known. There must be room for kRoom ids, and for one id a byte of the piece.
  std::int32_t* write(const PieceKey<kWords>& key, std::int32_t* out) const {
    return write(key, set_of(key), out);
  }
  // The same in two steps: the place of a piece, which starts to fetch it, and later the rest.
  std::size_t prefetch(const PieceKey<kWords>& key) const {
    const std::size_t place = set_of(key);
    __builtin_prefetch(&sets_[place]);
    return place;
  }
  std::int32_t* write(const PieceKey<kWords>& key, std::size_t place, std::int32_t* out) const {
    const Set& set = sets_[place];
    // Which way holds a word is chance, so it is chosen without a branch.
    unsigned way = 0;
    for (unsigned i = 1; i < kWays; ++i) {
      way += static_cast<unsigned>(same_piece(set.entries[i].key, key)) * i;
    }
    const Entry& entry = set.entries[way];
    if (!same_piece(entry.key, key)) [[unlikely]] {
      return nullptr;
    }
    const unsigned count = static_cast<unsigned>(entry.key[kWords - 1] >> kCountShift);
    if (count == kSpilled) [[unlikely]] {
      return write_spilled(entry, out);
    }
    std::memcpy(out, entry.ids.data(), sizeof entry.ids);
    return out + count;
  }

  // Remembers a piece that `write` did not find.
  void insert(const PieceKey<kWords>& key, std::span<const std::int32_t> piece_ids) {
    Set& set = sets_[set_of(key)];
    for (unsigned way = kWays - 1; way > 0; --way) {
      set.entries[way] = set.entries[way - 1];
    }
    Entry entry{key, {}};
    std::uint64_t count = piece_ids.size();
    if (count <= kMostInline) {
      std::memcpy(entry.ids.data(), piece_ids.data(), piece_ids.size_bytes());
    } else {
      count = kSpilled;
      entry.ids[0] = static_cast<std::int32_t>(spilled_.size());
      entry.ids[1] = static_cast<std::int32_t>(piece_ids.size());
      spilled_.insert(spilled_.end(), piece_ids.begin(), piece_ids.end());
    }
    entry.key[kWords - 1] |= count << kCountShift;
    set.entries[0] = entry;
    if (spilled_.size() > kMostSpilled) {
      clear();
    }
  }

  void clear() {
    sets_.clear();
    spilled_.clear();
  }

 private:
  // The top three bits of a stored key's length byte say how many ids there are.
  static constexpr unsigned kCountShift = 61;
  static constexpr unsigned kSpilled = 0;
  static constexpr std::size_t kMostInline = kIds < 8 ? kIds : 7;
  static constexpr std::size_t kMostSpilled = std::size_t{1} << 20U;

  struct Entry {
    PieceKey<kWords> key;
    std::array<std::int32_t, kIds> ids;
  };
  struct Set {
    std::array<Entry, kWays> entries;
  };

  static bool same_piece(const PieceKey<kWords>& stored, const PieceKey<kWords>& key) {
    std::uint64_t difference = (stored[kWords - 1] ^ key[kWords - 1]) << (64U - kCountShift);
    for (unsigned i = 0; i + 1 < kWords; ++i) {
      difference |= stored[i] ^ key[i];
    }
    return difference == 0;
  }

  static std::size_t set_of(const PieceKey<kWords>& key) {
    std::uint64_t hash = mix(key[0] ^ kMix1, key[kWords - 1] ^ kMix2);
    if constexpr (kWords == 4) {
      hash ^= mix(key[1] ^ kMix2, key[2] ^ kMix1);
    }
    return static_cast<std::size_t>(hash >> (64U - kSetBits));
  }

  std::int32_t* write_spilled(const Entry& entry, std::int32_t* out) const {
    return std::copy_n(spilled_.data() + entry.ids[0], entry.ids[1], out);
  }

  PageArray<Set> sets_;
  std::vector<std::int32_t> spilled_;  // The ids of pieces with more than an entry holds.
};

// 65,536 kWords of up to 15 bytes in 2 MB, two to a cache line.
using ShortWordCache = WordCache<2, 4, 2, 17>;
// 16,384 kWords of up to 31 bytes in 1 MB.
using LongWordCache = WordCache<4, 8, 1, 14>;

}  // namespace tessera::tokenizer
