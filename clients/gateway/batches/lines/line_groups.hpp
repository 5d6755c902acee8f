#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::gateway {

// Which chunk of a job each line of a batch goes into: whole lines, together at most 256 items and
// 1 MiB; a line above that has a chunk of its own. It depends on the lines alone, so a run that is
// taken up again makes the same chunks.
class LineGroups {
 public:
  static constexpr std::size_t kItemsMax = 256;
  static constexpr std::size_t kBytesMax = 1U << 20;

  // The chunk of the next line.
  std::uint32_t place(std::size_t items, std::size_t bytes) {
    const bool fits = items_ + items <= kItemsMax && bytes_ + bytes <= kBytesMax;
    if (count_ == 0 || !fits) {
      ++count_;
      items_ = bytes_ = 0;
    }
    items_ += items;
    bytes_ += bytes;
    return count_ - 1;
  }
  std::uint32_t count() const { return count_; }

 private:
  std::uint32_t count_ = 0;
  std::size_t items_ = 0;  // Of the last chunk.
  std::size_t bytes_ = 0;
};

}  // namespace tessera::gateway
