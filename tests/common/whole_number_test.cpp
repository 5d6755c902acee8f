#include "common/whole_number.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace tessera {
namespace {

TEST(WholeNumber, IsTheWholeTextOrNothing) {
  EXPECT_EQ(whole_number<std::uint32_t>("4294967295"), 4294967295U);
  EXPECT_EQ(whole_number<std::int64_t>("-7"), -7);
  EXPECT_EQ(whole_number<std::uint32_t>("007"), 7U);
  for (const char* text : {"", " 7", "7 ", "+7", "7x", "0x7", "7.0", "-7", "4294967296"}) {
    EXPECT_FALSE(whole_number<std::uint32_t>(text)) << text;
  }
}

}  // namespace
}  // namespace tessera
