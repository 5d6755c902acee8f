#include "kernels/cuda/products/algorithm_cache.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace tessera::kernels::cuda {
namespace {

using Algorithm = AlgorithmCache::Algorithm;

Algorithm algorithm(std::uint8_t first) { return {std::byte{first}, std::byte{0xab}}; }

class AlgorithmCacheTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove(path_); }
  void TearDown() override { std::filesystem::remove(path_); }
  AlgorithmCache open(const std::string& machine = "H200") const { return {path_, machine, 2}; }
  std::string text() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& text) const { std::ofstream(path_) << text; }

  const std::string path_ = ::testing::TempDir() + "algorithm_cache_test." +
                            std::to_string(::testing::UnitTest::GetInstance()->random_seed());
  const MatmulKey key_{.rows = 128, .n = 64, .k = 32, .accumulate = true};
};

TEST(RowsBucket, RoundsUpByAtMostAQuarterOctave) {
  EXPECT_EQ(rows_bucket(1), 16);
  EXPECT_EQ(rows_bucket(16), 16);
  EXPECT_EQ(rows_bucket(17), 32);
  EXPECT_EQ(rows_bucket(128), 128);
  EXPECT_EQ(rows_bucket(129), 160);
  EXPECT_EQ(rows_bucket(16384), 16384);
  EXPECT_EQ(rows_bucket(16385), 20480);
  for (std::int64_t rows = 64; rows < 5000; ++rows) {
    EXPECT_GE(rows_bucket(rows), rows);
    EXPECT_LE(rows_bucket(rows) * 4, rows * 5 + 4) << rows;
    EXPECT_EQ(rows_bucket(rows_bucket(rows)), rows_bucket(rows));
  }
}

TEST_F(AlgorithmCacheTest, KeepsChoicesAcrossStarts) {
  AlgorithmCache first = open();
  EXPECT_EQ(first.find(key_), nullptr);
  first.put(key_, algorithm(7));
  EXPECT_TRUE(first.save());
  const AlgorithmCache second = open();
  ASSERT_NE(second.find(key_), nullptr);
  EXPECT_EQ(*second.find(key_), algorithm(7));
  EXPECT_EQ(second.find({.rows = 128, .n = 64, .k = 32, .accumulate = false}), nullptr);
}

TEST_F(AlgorithmCacheTest, ForgetsChoicesOfAnotherMachine) {
  AlgorithmCache first = open("H200, driver 1");
  first.put(key_, algorithm(7));
  EXPECT_TRUE(first.save());
  EXPECT_EQ(open("H200, driver 2").size(), 0U);
}

TEST_F(AlgorithmCacheTest, MergesWhatOthersSaved) {
  AlgorithmCache first = open();
  AlgorithmCache second = open();
  first.put(key_, algorithm(1));
  EXPECT_TRUE(first.save());
  second.put({.rows = 16, .n = 8, .k = 8}, algorithm(2));
  EXPECT_TRUE(second.save());
  EXPECT_EQ(open().size(), 2U);
}

TEST_F(AlgorithmCacheTest, ABrokenFileIsAsGoodAsNone) {
  AlgorithmCache first = open();
  first.put(key_, algorithm(7));
  EXPECT_TRUE(first.save());
  const std::string whole = text();
  for (std::size_t length = 0; length + 1 < whole.size(); ++length) {
    write(whole.substr(0, length));
    EXPECT_EQ(open().size(), 0U) << "cut at " << length;
  }
  for (const std::string& broken :
       {std::string("x"), whole + "1 2 3\n", whole + "1 2 3 0 zzzz\n"}) {
    write(broken);
    EXPECT_EQ(open().size(), 0U) << broken;
  }
}

TEST_F(AlgorithmCacheTest, WithoutAPathNothingIsKept) {
  AlgorithmCache cache("", "H200", 2);
  cache.put(key_, algorithm(7));
  EXPECT_TRUE(cache.save());
  EXPECT_NE(cache.find(key_), nullptr);
  EXPECT_EQ(AlgorithmCache("", "H200", 2).size(), 0U);
}

}  // namespace
}  // namespace tessera::kernels::cuda
