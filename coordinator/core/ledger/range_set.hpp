#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace tessera::coordinator {

// A set of chunk numbers kept as ranges: a job of any length whose chunks come nearly in order
// costs a few entries.
class RangeSet {
 public:
  bool contains(std::uint32_t value) const;
  // Returns false when it was there already.
  bool insert(std::uint32_t value);
  std::uint64_t size() const { return size_; }
  std::size_t ranges() const { return first_to_last_.size(); }
  // One more than the largest value; 0 when empty.
  std::uint64_t end() const;
  // Inclusive ranges, ascending.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> to_pairs() const;
  std::vector<std::uint32_t> to_values() const;

  // Bit `7 - n % 8` of byte `n / 8` is value n: the layout of Redis' SETBIT.
  static RangeSet from_bitmap(std::span<const std::byte> bitmap);

 private:
  std::map<std::uint32_t, std::uint32_t> first_to_last_;
  std::uint64_t size_ = 0;
};

}  // namespace tessera::coordinator
