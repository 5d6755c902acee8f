#include "common/float16.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace tessera {
namespace {

TEST(Float16, EveryBitPatternComesBack) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = static_cast<std::uint16_t>(i);
  }
  std::vector<float> floats(halves.size());
  from_float16(halves, floats);
  std::vector<std::uint16_t> back(halves.size());
  to_float16(floats, back);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    const float scalar = from_float16(halves[i]);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(scalar), std::bit_cast<std::uint32_t>(floats[i])) << i;
    if (!std::isnan(scalar)) {
      ASSERT_EQ(back[i], halves[i]);
      ASSERT_EQ(to_float16(scalar), halves[i]);
    } else {
      ASSERT_TRUE(std::isnan(from_float16(back[i])));
      ASSERT_TRUE(std::isnan(from_float16(to_float16(scalar))));
    }
  }
}

TEST(Float16, RoundsToNearestEvenLikeTheInstruction) {
  EXPECT_EQ(to_float16(1.0F), 0x3C00);
  EXPECT_EQ(to_float16(65504.0F), 0x7BFF);
  EXPECT_EQ(to_float16(65520.0F), 0x7C00);
  EXPECT_EQ(to_float16(1.0F + 0x1p-11F), 0x3C00);      // halfway, to even
  EXPECT_EQ(to_float16(1.0F + 3 * 0x1p-11F), 0x3C02);  // halfway, to even
  EXPECT_EQ(to_float16(0x1p-25F), 0x0000);             // halfway to the smallest subnormal
  EXPECT_EQ(to_float16(-0.0F), 0x8000);
  std::mt19937 random(7);
  std::vector<float> values(1 << 16);
  for (float& value : values) {
    value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
  }
  std::vector<std::uint16_t> bulk(values.size());
  to_float16(values, bulk);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isnan(values[i])) {
      ASSERT_EQ(to_float16(values[i]), bulk[i]) << values[i];
    }
  }
}

}  // namespace
}  // namespace tessera
