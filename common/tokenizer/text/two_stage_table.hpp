#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace tessera::tokenizer {

// One byte for every code point, in two levels: blocks of 128 code points, equal blocks shared.
// Const after construction; tens of KB, of which ordinary text touches one or two.
class TwoStageTable {
 public:
  static constexpr std::size_t kCodePoints = 0x110000;

  TwoStageTable() = default;
  // `flat` has one value for each code point.
  explicit TwoStageTable(std::span<const std::uint8_t> flat) {
    std::unordered_map<std::string, std::uint16_t> known;
    for (std::size_t block = 0; block < index_.size(); ++block) {
      const auto content = flat.subspan(block << kBlockBits, std::size_t{1} << kBlockBits);
      const auto next = static_cast<std::uint16_t>(known.size());
      const auto [entry, is_new] =
          known.try_emplace(std::string(content.begin(), content.end()), next);
      if (is_new) {
        blocks_.insert(blocks_.end(), content.begin(), content.end());
      }
      index_[block] = entry->second;
    }
  }

  // `code_point` must be below 0x110000.
  std::uint8_t operator[](char32_t code_point) const {
    return blocks_[(std::size_t{index_[code_point >> kBlockBits]} << kBlockBits) +
                   (code_point & kBlockMask)];
  }

 private:
  static constexpr unsigned kBlockBits = 7;
  static constexpr char32_t kBlockMask = (1U << kBlockBits) - 1;

  std::array<std::uint16_t, (kCodePoints >> kBlockBits)> index_{};
  std::vector<std::uint8_t> blocks_;
};

}  // namespace tessera::tokenizer
