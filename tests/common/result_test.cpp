#include "common/result.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "common/bounded_queue.hpp"

namespace tessera {
namespace {

TEST(Result, HoldsAValueOrAnError) {
  Result<std::unique_ptr<int>> good(std::make_unique<int>(7));
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*std::move(good).value(), 7);
  const Result<int> bad(Error{ErrorCode::kTooLong, "too long"});
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::kTooLong);
  EXPECT_EQ(to_string(bad.error().code), "TOO_LONG");
}

TEST(ResultDeathTest, ValueOfAnErrorAborts) {
  const Result<int> bad(Error{ErrorCode::kInternal, "the reason"});
  EXPECT_DEATH((void)bad.value(), "the reason");
}

TEST(BoundedQueue, RefusesWhenFullAndDrainsAfterClose) {
  BoundedQueue<int> queue(2);
  int a = 1, b = 2, c = 3;
  EXPECT_TRUE(queue.try_push(a));
  EXPECT_TRUE(queue.try_push(b));
  EXPECT_FALSE(queue.try_push(c));
  queue.close();
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_EQ(queue.pop(), std::nullopt);
  EXPECT_FALSE(queue.push(4));
}

TEST(BoundedQueue, HandsEverythingOverBetweenThreads) {
  BoundedQueue<int> queue(4);
  std::vector<int> got;
  std::jthread reader([&] {
    while (auto item = queue.pop()) {
      got.push_back(*item);
    }
  });
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(queue.push(i));
  }
  queue.close();
  reader.join();
  ASSERT_EQ(got.size(), 1000U);
  EXPECT_EQ(got.back(), 999);
}

TEST(CheckDeathTest, BothSidesOfAComparisonArePrinted) {
  const std::vector<int> three(3);
  CHECK(three.size() == 3);
  CHECK(three.size() >= 2 && !three.empty());
  EXPECT_DEATH(CHECK(three.size() <= 2), "three.size\\(\\) <= 2, with 3 and 2");
  EXPECT_DEATH(CHECK(std::string("a") == "b"), "with a and b");
  EXPECT_DEATH(CHECK(three.empty()), "CHECK failed in .*: three.empty\\(\\)");
  EXPECT_DEATH(CHECK(ErrorCode::kOk == ErrorCode::kInternal), "with 0 and 16");
  EXPECT_DEATH(CHECK(-1 == 4294967295U), "with -1 and 4294967295") << "compared by value";
}

}  // namespace
}  // namespace tessera
