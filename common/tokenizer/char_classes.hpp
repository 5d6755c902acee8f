#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/tokenizer/unicode_tables.hpp"

namespace tessera::tokenizer {

// The class of every code point, in two levels: blocks of 128 code points, equal blocks shared.
// Const after construction; about 40 KB, of which ordinary text touches one or two.
class CharClasses {
 public:
  CharClasses();

  // `code_point` must be below 0x110000.
  CharClass of(char32_t code_point) const {
    return blocks_[(std::size_t{index_[code_point >> kBlockBits]} << kBlockBits) +
                   (code_point & kBlockMask)];
  }

 private:
  static constexpr unsigned kBlockBits = 7;
  static constexpr char32_t kBlockMask = (1U << kBlockBits) - 1;
  static constexpr std::size_t kCodePoints = 0x110000;

  std::array<std::uint16_t, (kCodePoints >> kBlockBits)> index_;
  std::vector<CharClass> blocks_;
};

}  // namespace tessera::tokenizer
