#include "common/tokenizer/bpe/merge_table.hpp"

#include <algorithm>
#include <bit>

namespace tessera::tokenizer {

MergeTable::MergeTable(std::size_t merges)
    : filter_((std::size_t{1} << kFilterBits) / 64),
      slots_(std::bit_ceil(std::max<std::size_t>(16, merges + merges / 2))),
      mask_(slots_.size() - 1),
      shift_(64 - static_cast<unsigned>(std::countr_zero(slots_.size()))) {
  std::ranges::fill(slots_, kEmpty);
}

bool MergeTable::add(std::int32_t left, std::int32_t right, std::uint32_t rank) {
  if (this->rank(left, right) != kNoMerge) {
    return false;
  }
  const std::uint64_t key = key_of(left, right);
  std::size_t at = start_of(key);
  while (slots_[at] != kEmpty) {
    at = (at + 1) & mask_;
  }
  const std::size_t bit = static_cast<std::size_t>(key * kMix1 >> (64U - kFilterBits));
  filter_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  slots_[at] = key << kRankBits | rank;
  return true;
}

}  // namespace tessera::tokenizer
