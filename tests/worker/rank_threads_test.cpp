#include "worker/group/rank_threads.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <future>

#include "common/check.hpp"

namespace tessera::worker {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kLong = std::chrono::minutes(5);

std::string failure_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const FatalError& error) {
    return error.what();
  }
  return "no failure";
}

TEST(RankThreads, RunsTasksInOrderOnEveryRank) {
  RankThreads group({.names = {"a", "b", "c"}});
  std::array<std::vector<int>, 3> seen;
  std::uint64_t last = 0;
  for (int i = 0; i < 50; ++i) {
    last = group.post([&seen, i](int rank) { seen[static_cast<std::size_t>(rank)].push_back(i); });
  }
  group.wait(last, kLong);
  for (const auto& tasks : seen) {
    ASSERT_EQ(tasks.size(), 50U);
    EXPECT_TRUE(std::ranges::is_sorted(tasks));
  }
}

TEST(RankThreads, DestructionRunsWhatWasPosted) {
  std::atomic<int> runs = 0;
  {
    RankThreads group({.names = {"a", "b"}});
    for (int i = 0; i < 10; ++i) group.post([&runs](int) { ++runs; });
  }
  EXPECT_EQ(runs, 20);
}

TEST(RankThreads, AFailureNamesRankAndCauseAndWakesTheOthers) {
  std::promise<void> woken;
  auto released = std::make_shared<std::shared_future<void>>(woken.get_future());
  RankThreads group({.names = {"cuda:0", "cuda:5"}, .wake = [&woken] { woken.set_value(); }});
  const std::uint64_t ticket = group.post([released](int rank) {
    if (rank == 1) throw FatalError("an illegal memory access was encountered");
    released->wait();
  });
  const std::string failure = failure_of([&] { group.wait(ticket, kLong); });
  EXPECT_EQ(failure, "rank 1 of 2 (cuda:5): an illegal memory access was encountered");
  EXPECT_EQ(failure_of([&] { group.post([](int) {}); }), failure);
}

// Where devices fail together, whichever notices first speaks.
TEST(RankThreads, AFailureAlsoNamesTheRankThatTheOthersWaitFor) {
  std::promise<void> woken;
  auto released = std::make_shared<std::shared_future<void>>(woken.get_future());
  const std::array<std::uint64_t, 3> progress = {8, 8, 7};
  RankThreads group({.names = {"cuda:0", "cuda:1", "cuda:2"},
                     .progress = [&](int rank) { return progress[static_cast<std::size_t>(rank)]; },
                     .wake = [&woken] { woken.set_value(); }});
  const std::uint64_t ticket = group.post([released](int rank) {
    if (rank == 0) throw FatalError("the GPU failed");
    released->wait();
  });
  EXPECT_EQ(
      failure_of([&] { group.wait(ticket, kLong); }),
      "rank 0 of 3 (cuda:0): the GPU failed; the others were waiting for rank 2 of 3 (cuda:2), "
      "whose device is the likely cause");
}

TEST(RankThreads, AStandstillNamesTheRankThatIsBehind) {
  auto release = std::make_shared<std::promise<void>>();
  auto released = std::make_shared<std::shared_future<void>>(release->get_future());
  std::array<std::atomic<std::uint64_t>, 3> progress = {7, 6, 7};
  RankThreads group(
      {.names = {"cuda:0", "cuda:1", "cuda:2"}, .progress = [&](int rank) -> std::uint64_t {
         return progress[static_cast<std::size_t>(rank)];
       }});
  const std::uint64_t ticket = group.post([released](int) { released->wait(); });
  EXPECT_THAT(failure_of([&] { group.wait(ticket, milliseconds(300)); }),
              AllOf(HasSubstr("rank 1 of 3 (cuda:1): hangs"), HasSubstr("collective")));
  release->set_value();
}

}  // namespace
}  // namespace tessera::worker
