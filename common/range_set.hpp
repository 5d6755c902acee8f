#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace tessera {

// A set of numbers kept as ranges, such as the chunks of a job: a job of any length whose chunks
// come nearly in order costs a few entries. Not synchronised.
class RangeSet {
 public:
  using Pairs = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // Inclusive.

  RangeSet() = default;
  // Ranges may touch or overlap and come in any order; those with last < first are left out.
  explicit RangeSet(const Pairs& ranges);
  // Bit `7 - n % 8` of byte `n / 8` is value n: the layout of Redis' SETBIT.
  static RangeSet from_bitmap(std::span<const std::byte> bitmap);

  bool contains(std::uint32_t value) const;
  // Returns false when it was there already.
  bool insert(std::uint32_t value);
  void insert(std::uint32_t first, std::uint32_t last);

  std::uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::size_t ranges() const { return first_to_last_.size(); }
  // One more than the largest value; 0 when empty.
  std::uint64_t end() const;
  // Ascending, disjoint and not touching.
  Pairs to_pairs() const;
  std::vector<std::uint32_t> to_values() const;

  // Calls f(value) in rising order.
  template <typename F>
  void for_each(F&& f) const {
    for (const auto& [first, last] : first_to_last_) {
      for (std::uint64_t value = first; value <= last; ++value) {
        f(static_cast<std::uint32_t>(value));
      }
    }
  }

 private:
  std::map<std::uint32_t, std::uint32_t> first_to_last_;
  std::uint64_t size_ = 0;
};

}  // namespace tessera
