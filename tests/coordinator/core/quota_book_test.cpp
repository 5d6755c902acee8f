#include "coordinator/core/queries/quota_book.hpp"

#include <gtest/gtest.h>

namespace tessera::coordinator {
namespace {

constexpr Micros kSecond = 1'000'000;

TEST(QuotaBook, LetsInWhatAMinuteHoldsAndFillsEvenly) {
  QuotaBook book;
  const auto first = book.admit("t", 600, 500, 0);
  EXPECT_TRUE(first.admitted);
  EXPECT_EQ(first.quota.limit, 600U);
  EXPECT_EQ(first.quota.remaining, 100U);
  EXPECT_EQ(book.settle("t", 500, 500, 0).remaining, 100U);
  const auto refused = book.admit("t", 600, 110, 0);
  EXPECT_FALSE(refused.admitted);
  EXPECT_EQ(refused.retry_after_ms, 1000U);  // Ten tokens are missing, ten come a second.
  EXPECT_EQ(refused.quota.reset_ms, 50'000U);
  EXPECT_FALSE(book.admit("t", 600, 110, kSecond * 99 / 100).admitted);
  EXPECT_TRUE(book.admit("t", 600, 110, kSecond).admitted);
}

TEST(QuotaBook, RealTokensReplaceTheEstimate) {
  struct Case {
    std::uint64_t estimate, tokens, remaining;
  };
  for (const Case& c : {Case{100, 40, 560}, Case{100, 100, 500}, Case{100, 250, 350},
                        Case{100, 0, 600}, Case{100, 900, 0}}) {
    QuotaBook book;
    EXPECT_EQ(book.admit("t", 600, c.estimate, 0).quota.remaining, 500U);
    EXPECT_EQ(book.settle("t", c.estimate, c.tokens, 0).remaining, c.remaining) << c.tokens;
  }
}

TEST(QuotaBook, DebtIsPaidBeforeTheNextRequest) {
  QuotaBook book;
  EXPECT_TRUE(book.admit("t", 60, 10, 0).admitted);
  book.settle("t", 10, 90, 0);
  EXPECT_EQ(book.admit("t", 60, 1, 0).retry_after_ms, 31'000U);
  EXPECT_TRUE(book.admit("t", 60, 1, 31 * kSecond).admitted);
}

TEST(QuotaBook, RequestsAtOnceShareTheBucket) {
  QuotaBook book;
  int admitted = 0;
  for (int i = 0; i < 20; ++i) {
    admitted += book.admit("t", 1000, 100, 0).admitted ? 1 : 0;
  }
  EXPECT_EQ(admitted, 10);
  EXPECT_TRUE(book.admit("another", 1000, 100, 0).admitted);
}

TEST(QuotaBook, MoreThanAMinuteHoldsNeedsAFullBucket) {
  QuotaBook book;
  EXPECT_TRUE(book.admit("t", 60, 1000, 0).admitted);
  EXPECT_FALSE(book.admit("t", 60, 1000, 0).admitted);
  book.settle("t", 1000, 120, 0);
  EXPECT_FALSE(book.admit("t", 60, 1000, 119 * kSecond).admitted);
  EXPECT_TRUE(book.admit("t", 60, 1000, 120 * kSecond).admitted);
}

TEST(QuotaBook, ANewLimitCountsAtOnceAndKeepsWhatWasSpent) {
  QuotaBook book;
  book.admit("t", 1000, 300, 0);
  EXPECT_EQ(book.settle("t", 300, 300, 0).remaining, 700U);
  EXPECT_EQ(book.admit("t", 2000, 0, 0).quota.remaining, 1700U);
  EXPECT_EQ(book.admit("t", 100, 0, 0).quota.remaining, 0U);
}

TEST(QuotaBook, ForgetsOnlyThoseThatAreSettledAndFull) {
  QuotaBook book;
  book.admit("waits", 60, 10, 0);
  book.admit("spent", 60, 10, 0);
  book.settle("spent", 10, 30, 0);
  book.sweep(29 * kSecond);
  EXPECT_EQ(book.tenants(), 2U);
  book.sweep(31 * kSecond);
  EXPECT_EQ(book.tenants(), 1U);
  book.settle("waits", 10, 0, 31 * kSecond);
  book.sweep(31 * kSecond);
  EXPECT_EQ(book.tenants(), 0U);
}

TEST(QuotaBook, EstimatesByBytes) {
  protocol::ItemBlock items{.sizes = {8, 4}, .kinds = {}, .payload = protocol::Bytes(12)};
  EXPECT_EQ(estimate_tokens(items), 5U);
}

}  // namespace
}  // namespace tessera::coordinator
