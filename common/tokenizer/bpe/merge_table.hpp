#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/tokenizer/base/hash.hpp"
#include "common/tokenizer/base/page_memory.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// From a pair of neighbours to the rank of their merge. One word per entry holds both ids and the
// rank; open addressing, at most 58% full for the 151,387 merges of Qwen3 (2 MB). Const after
// `add`.
class MergeTable {
 public:
  static constexpr std::uint32_t kNoMerge = UINT32_MAX;

  // Room for `merges` entries; ids and ranks must be below Vocabulary::kMaxIds.
  explicit MergeTable(std::size_t merges);
  // False when the pair is there already.
  bool add(std::int32_t left, std::int32_t right, std::uint32_t rank);

  std::uint32_t rank(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    const std::uint64_t hash = key * kMix1;
    const std::size_t bit = static_cast<std::size_t>(hash >> (64U - kFilterBits));
    if ((filter_[bit / 64] >> (bit % 64) & 1U) == 0) {
      return kNoMerge;
    }
    for (std::size_t at = static_cast<std::size_t>(hash >> shift_);; at = (at + 1) & mask_) {
      const std::uint64_t slot = slots_[at];
      if (slot >> kRankBits == key) {
        return static_cast<std::uint32_t>(slot & kRankMask);
      }
      if (slot == kEmpty) {
        return kNoMerge;
      }
    }
  }

 private:
  static constexpr unsigned kIdBits = 21;
  static constexpr unsigned kRankBits = 22;
  static constexpr std::uint64_t kRankMask = (std::uint64_t{1} << kRankBits) - 1;
  static constexpr std::uint64_t kEmpty = UINT64_MAX;  // Its rank field is above every rank.

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << kIdBits |
           static_cast<std::uint32_t>(right);
  }
  std::size_t start_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * kMix1) >> shift_);
  }

  static constexpr unsigned kFilterBits = 21;

  std::vector<std::uint64_t> filter_;
  PageArray<std::uint64_t> slots_;
  std::size_t mask_;
  unsigned shift_;
};

}  // namespace tessera::tokenizer
