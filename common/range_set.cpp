#include "common/range_set.hpp"

#include <algorithm>
#include <iterator>

namespace tessera {

RangeSet::RangeSet(const Pairs& ranges) {
  for (const auto& [first, last] : ranges) {
    insert(first, last);
  }
}

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

void RangeSet::insert(std::uint32_t first, std::uint32_t last) {
  if (last < first) {
    return;
  }
  auto at = first_to_last_.upper_bound(first);
  if (at != first_to_last_.begin() && std::uint64_t{std::prev(at)->second} + 1 >= first) {
    --at;
  }
  while (at != first_to_last_.end() && at->first <= std::uint64_t{last} + 1) {
    size_ -= std::uint64_t{at->second} - at->first + 1;
    first = std::min(first, at->first);
    last = std::max(last, at->second);
    at = first_to_last_.erase(at);
  }
  first_to_last_.emplace(first, last);
  size_ += std::uint64_t{last} - first + 1;
}

std::uint64_t RangeSet::end() const {
  return first_to_last_.empty() ? 0 : std::uint64_t{first_to_last_.rbegin()->second} + 1;
}

RangeSet::Pairs RangeSet::to_pairs() const {
  return {first_to_last_.begin(), first_to_last_.end()};
}

std::vector<std::uint32_t> RangeSet::to_values() const {
  std::vector<std::uint32_t> values;
  values.reserve(size_);
  for_each([&values](std::uint32_t value) { values.push_back(value); });
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

}  // namespace tessera
