#include "kernels/cpu/team.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <random>
#include <vector>

#include "common/check.hpp"
#include "kernels/cpu/partition.hpp"

namespace tessera::kernels::cpu {
namespace {

TEST(Team, EveryMemberRunsEveryJobInOrder) {
  Team team(3);
  std::vector<std::vector<int>> seen(3);
  std::vector<Team::Job> jobs;
  for (int job = 0; job < 50; ++job) {
    jobs.push_back(
        [&seen, job](int member) { seen[static_cast<std::size_t>(member)].push_back(job); });
  }
  std::uint64_t last = 0;
  for (const Team::Job& job : jobs) {
    last = team.submit(&job);
  }
  team.wait(last);
  std::vector<int> expected(50);
  std::iota(expected.begin(), expected.end(), 0);
  for (const auto& order : seen) {
    EXPECT_EQ(order, expected);
  }
}

TEST(Team, AJobStartsWhenAllHaveEndedTheOneBefore) {
  Team team(4);
  std::atomic<int> ended{0};
  std::atomic<bool> early{false};
  const Team::Job first = [&](int) { ++ended; };
  const Team::Job second = [&](int) { early = early || ended != 4; };
  for (int round = 0; round < 100; ++round) {
    ended = 0;
    team.submit(&first);
    team.run(second);
  }
  EXPECT_FALSE(early);
}

TEST(Team, MembersMeet) {
  Team team(4);
  std::atomic<int> before{0};
  std::atomic<bool> early{false};
  const Team::Job job = [&](int) {
    for (int round = 1; round <= 100; ++round) {
      ++before;
      team.meet();
      early = early || before < 4 * round;
      team.meet();
    }
  };
  team.run(job);
  EXPECT_FALSE(early);
  EXPECT_EQ(before, 400);
}

TEST(Team, AFailureReachesTheOwnerAndFreesThoseWhoWait) {
  Team team(3);
  const Team::Job job = [&](int member) {
    if (member == 1) {
      throw FatalError("the reason");
    }
    team.meet();
  };
  try {
    team.run(job);
    FAIL() << "no failure";
  } catch (const FatalError& error) {
    EXPECT_NE(std::string(error.what()).find("the reason"), std::string::npos);
  }
}

// What must hold for any batch and team: ranges follow each other and cover the batch, the last row
// of a sequence is with its last token, and every sequence is whole in one share or listed as cut.
void expect_sound(const std::vector<std::int32_t>& cu_seqlens, const PartitionOptions& options) {
  const Partition partition = partition_batch(cu_seqlens, options);
  ASSERT_EQ(partition.shares.size(), static_cast<std::size_t>(options.members));
  std::int64_t token = 0, sequence = 0;
  std::vector<int> owners(cu_seqlens.size() - 1);
  for (const Share& share : partition.shares) {
    EXPECT_EQ(share.token_begin, token);
    EXPECT_EQ(share.sequence_begin, sequence);
    EXPECT_LE(share.token_begin, share.token_end);
    token = share.token_end;
    sequence = share.sequence_end;
    for (std::int64_t i = share.sequence_begin; i < share.sequence_end; ++i) {
      const std::int64_t last = cu_seqlens[static_cast<std::size_t>(i) + 1] - 1;
      EXPECT_TRUE(last >= share.token_begin && last < share.token_end);
    }
    for (std::int64_t i = share.whole_begin; i < share.whole_end; ++i) {
      EXPECT_GE(cu_seqlens[static_cast<std::size_t>(i)], share.token_begin);
      EXPECT_LE(cu_seqlens[static_cast<std::size_t>(i) + 1], share.token_end);
      ++owners[static_cast<std::size_t>(i)];
    }
  }
  EXPECT_EQ(token, cu_seqlens.back());
  EXPECT_EQ(sequence, static_cast<std::int64_t>(cu_seqlens.size()) - 1);
  for (const std::int64_t i : partition.cut_sequences) {
    ++owners[static_cast<std::size_t>(i)];
  }
  EXPECT_EQ(owners, std::vector<int>(owners.size(), 1));
}

TEST(Partition, IsSoundForRandomBatches) {
  std::mt19937 generator(11);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::int32_t> cu_seqlens = {0};
    const int sequences = 1 + static_cast<int>(generator() % 20);
    for (int i = 0; i < sequences; ++i) {
      const int longest = generator() % 4 == 0 ? 400 : 12;
      cu_seqlens.push_back(cu_seqlens.back() + 1 + static_cast<int>(generator() % longest));
    }
    expect_sound(cu_seqlens, {.members = 1 + static_cast<int>(generator() % 9),
                              .square_cost = round % 3 * 0.001});
    if (HasFailure()) {
      FAIL() << "round " << round;
    }
  }
}

TEST(Partition, CutsBetweenShortSequencesAndInsideALongOne) {
  std::vector<std::int32_t> many = {0};
  for (int i = 0; i < 400; ++i) {
    many.push_back(many.back() + 20);
  }
  const Partition even = partition_batch(many, {.members = 2});
  EXPECT_TRUE(even.cut_sequences.empty());
  EXPECT_EQ(even.shares[0].token_end, 4000);
  const std::vector<std::int32_t> one = {0, 512};
  const Partition cut = partition_batch(one, {.members = 2});
  EXPECT_EQ(cut.cut_sequences, std::vector<std::int64_t>{0});
  EXPECT_EQ(cut.shares[0].token_end, 256);
  const std::vector<std::int32_t> tiny = {0, 10};
  EXPECT_TRUE(partition_batch(tiny, {.members = 2}).cut_sequences.empty());
}

}  // namespace
}  // namespace tessera::kernels::cpu
