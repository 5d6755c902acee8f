#include "common/range_set.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace tessera {
namespace {

using Pairs = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

TEST(RangeSet, JoinsNeighbours) {
  struct Case {
    std::vector<std::uint32_t> values;
    Pairs expected;
  };
  const Case cases[] = {
      {{}, {}},
      {{5}, {{5, 5}}},
      {{0, 1, 2}, {{0, 2}}},
      {{2, 0, 1}, {{0, 2}}},
      {{0, 2}, {{0, 0}, {2, 2}}},
      {{0, 2, 1, 1}, {{0, 2}}},
      {{9, 3, 4, 8, 6}, {{3, 4}, {6, 6}, {8, 9}}},
      {{0xFFFFFFFF, 0xFFFFFFFE}, {{0xFFFFFFFE, 0xFFFFFFFF}}},
  };
  for (const Case& c : cases) {
    RangeSet set;
    for (const std::uint32_t value : c.values) {
      set.insert(value);
    }
    EXPECT_EQ(set.to_pairs(), c.expected);
  }
}

TEST(RangeSet, AgreesWithASet) {
  std::mt19937 random(11);
  RangeSet ranges;
  std::set<std::uint32_t> reference;
  for (int i = 0; i < 3000; ++i) {
    const std::uint32_t value = static_cast<std::uint32_t>(random() % 500);
    EXPECT_EQ(ranges.insert(value), reference.insert(value).second);
    EXPECT_EQ(ranges.size(), reference.size());
    const std::uint32_t asked = static_cast<std::uint32_t>(random() % 510);
    EXPECT_EQ(ranges.contains(asked), reference.contains(asked));
  }
  EXPECT_EQ(ranges.end(), *reference.rbegin() + 1);
  EXPECT_EQ(ranges.to_values(), std::vector(reference.begin(), reference.end()));
}

TEST(RangeSet, ReadsABitmapInRedisOrder) {
  const std::byte bitmap[] = {std::byte{0b10000001}, std::byte{0b11000000}};
  const Pairs expected = {{0, 0}, {7, 9}};
  EXPECT_EQ(RangeSet::from_bitmap(bitmap).to_pairs(), expected);
}

TEST(RangeSet, RangesThatTouchOrOverlapInAnyOrderAgreeWithASet) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    RangeSet ranges;
    std::set<std::uint32_t> plain;
    for (int i = 0; i < 20; ++i) {
      const auto first = static_cast<std::uint32_t>(random() % 100);
      const auto last = static_cast<std::uint32_t>(random() % 100);
      ranges.insert(first, last);
      for (std::uint32_t value = first; value <= last; ++value) {
        plain.insert(value);
      }
      ASSERT_EQ(ranges.size(), plain.size());
    }
    EXPECT_EQ(ranges.to_values(), std::vector<std::uint32_t>(plain.begin(), plain.end()));
    EXPECT_EQ(RangeSet(ranges.to_pairs()).to_pairs(), ranges.to_pairs());
  }
}

TEST(RangeSet, TheLargestNumbersDoNotWrapAround) {
  constexpr std::uint32_t kLargest = 0xFFFFFFFF;
  RangeSet set({{kLargest - 1, kLargest}, {5, 3}, {0, 0}});
  set.insert(kLargest, kLargest);
  EXPECT_EQ(set.size(), 3U);
  EXPECT_TRUE(set.contains(kLargest));
  EXPECT_EQ(set.end(), std::uint64_t{kLargest} + 1);
  EXPECT_EQ(set.to_values(), (std::vector<std::uint32_t>{0, kLargest - 1, kLargest}));
}

}  // namespace
}  // namespace tessera
