#include "coordinator/core/ledger/range_set.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace tessera::coordinator {
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

}  // namespace
}  // namespace tessera::coordinator
