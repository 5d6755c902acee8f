#include "coordinator/core/ledger/range_set.hpp"

#include <iterator>

namespace tessera::coordinator {

bool RangeSet::contains(std::uint32_t value) const {
  const auto after = first_to_last_.upper_bound(value);
  return after != first_to_last_.begin() && std::prev(after)->second >= value;
}

bool RangeSet::insert(std::uint32_t value) {
  const auto after = first_to_last_.upper_bound(value);
  auto before = after == first_to_last_.begin() ? first_to_last_.end() : std::prev(after);
  if (before != first_to_last_.end() && before->second >= value) {
    return false;
  }
  ++size_;
  const bool joins_before = before != first_to_last_.end() && before->second + 1 == value;
  const bool joins_after = after != first_to_last_.end() && after->first == value + 1;
  const std::uint32_t last = joins_after ? after->second : value;
  if (joins_after) {
    first_to_last_.erase(after);
  }
  if (joins_before) {
    before->second = last;
  } else {
    first_to_last_.emplace(value, last);
  }
  return true;
}

std::uint64_t RangeSet::end() const {
  return first_to_last_.empty() ? 0 : std::uint64_t{first_to_last_.rbegin()->second} + 1;
}

std::vector<std::pair<std::uint32_t, std::uint32_t>> RangeSet::to_pairs() const {
  return {first_to_last_.begin(), first_to_last_.end()};
}

std::vector<std::uint32_t> RangeSet::to_values() const {
  std::vector<std::uint32_t> values;
  values.reserve(size_);
  for (const auto& [first, last] : first_to_last_) {
    for (std::uint64_t value = first; value <= last; ++value) {
      values.push_back(static_cast<std::uint32_t>(value));
    }
  }
  return values;
}

RangeSet RangeSet::from_bitmap(std::span<const std::byte> bitmap) {
  RangeSet set;
  for (std::size_t i = 0; i < bitmap.size() * 8; ++i) {
    if ((std::to_integer<unsigned>(bitmap[i / 8]) >> (7 - i % 8) & 1U) != 0) {
      set.insert(static_cast<std::uint32_t>(i));
    }
  }
  return set;
}

}  // namespace tessera::coordinator
