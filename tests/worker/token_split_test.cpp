#include "worker/split/token_split.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

namespace tessera::worker {
namespace {

constexpr double kPairCost4B = 1.1e-4;

struct Batch {
  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> cu_seqlens{0};
  kernels::PackedBatchView view() const { return {input_ids, cu_seqlens}; }
};

Batch batch_of(const std::vector<std::int32_t>& seqlens) {
  Batch batch;
  for (const std::int32_t n : seqlens) batch.cu_seqlens.push_back(batch.cu_seqlens.back() + n);
  batch.input_ids.resize(static_cast<std::size_t>(batch.cu_seqlens.back()));
  std::iota(batch.input_ids.begin(), batch.input_ids.end(), 0);  // an id names its token
  return batch;
}

double cost(const TokenShare& share) {
  double sum = 0;
  for (std::size_t i = 0; i + 1 < share.cu_seqlens.size(); ++i) {
    const double n = share.cu_seqlens[i + 1] - share.cu_seqlens[i];
    const double position = share.segments.empty() ? 0 : share.segments[i].position;
    sum += n + kPairCost4B * n * (position + 0.5 * n);
  }
  return sum;
}

// Every token is on one rank; every key that a rank's queries look at lies, as itself, where the
// segment says; every sequence ends on one rank.
void expect_covers(const Batch& batch, const TokenSplit& split) {
  std::vector<int> seen(batch.input_ids.size());
  std::vector<int> ended(batch.cu_seqlens.size() - 1);
  std::vector<std::map<std::int32_t, std::int32_t>> gathered(split.ranks.size());
  for (std::size_t rank = 0; rank < split.ranks.size(); ++rank) {
    const TokenShare& share = split.ranks[rank];
    for (const std::int32_t id : share.input_ids) ++seen[static_cast<std::size_t>(id)];
    for (const std::int32_t i : share.sequences) ++ended[static_cast<std::size_t>(i)];
    ASSERT_EQ(share.kv_rows.size(), split.gathers ? share.input_ids.size() : 0);
    for (std::size_t t = 0; t < share.kv_rows.size(); ++t) {
      const std::int32_t row = share.kv_rows[t];
      for (std::size_t to = 0; to < split.ranks.size(); ++to) {
        if (row < 0 && to != rank) continue;
        ASSERT_TRUE(gathered[to].emplace(row < 0 ? -1 - row : row, share.input_ids[t]).second);
      }
    }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<std::ptrdiff_t>(seen.size()));
  EXPECT_EQ(std::count(ended.begin(), ended.end(), 1), static_cast<std::ptrdiff_t>(ended.size()));
  for (std::size_t rank = 0; rank < split.ranks.size(); ++rank) {
    const TokenShare& share = split.ranks[rank];
    std::size_t vectors = 0;
    for (std::size_t i = 0; i < share.segments.size(); ++i) {
      const kernels::Segment& segment = share.segments[i];
      ASSERT_EQ(segment.position % kernels::kSegmentAlignment, 0);
      const std::int32_t tokens = share.cu_seqlens[i + 1] - share.cu_seqlens[i];
      const std::int32_t first = share.input_ids[static_cast<std::size_t>(share.cu_seqlens[i])];
      for (std::int32_t p = 0; p < segment.position + tokens; ++p) {
        ASSERT_EQ(gathered[rank][segment.first_kv + p], first - segment.position + p);
      }
      vectors += segment.ends ? 1 : 0;
    }
    if (split.gathers) {
      EXPECT_EQ(vectors, share.sequences.size());
    }
    ASSERT_TRUE(gathered[rank].empty() || gathered[rank].rbegin()->first < split.gathered_rows);
  }
}

TEST(TokenSplit, ShortSequencesStayWhole) {
  const Batch batch = batch_of(std::vector<std::int32_t>(64, 256));
  const TokenSplit split = split_tokens(batch.view(), {.size = 4, .pair_cost = kPairCost4B});
  EXPECT_FALSE(split.gathers);
  expect_covers(batch, split);
  for (const TokenShare& share : split.ranks) EXPECT_EQ(share.input_ids.size(), 16U * 256U);
}

TEST(TokenSplit, OneLongDocumentIsBalanced) {
  for (const int size : {2, 4, 8}) {
    for (const std::int32_t seqlen : {8192, 32768, 8191, 20001}) {
      const Batch batch = batch_of({seqlen});
      const TokenSplit split = split_tokens(batch.view(), {.size = size, .pair_cost = kPairCost4B});
      EXPECT_TRUE(split.gathers);
      expect_covers(batch, split);
      double most = 0, sum = 0;
      for (const TokenShare& share : split.ranks) {
        most = std::max(most, cost(share));
        sum += cost(share);
      }
      EXPECT_LT(most, sum / size * 1.08) << size << " " << seqlen;
    }
  }
}

TEST(TokenSplit, AShortTextTakesAsManyRanksAsItHasPieces) {
  const Batch batch = batch_of({300});
  const TokenSplit split = split_tokens(batch.view(), {.size = 4, .pair_cost = kPairCost4B});
  expect_covers(batch, split);
  EXPECT_EQ(split.ranks[0].input_ids.size(), 128U);
  EXPECT_EQ(split.ranks[2].input_ids.size(), 44U);
  EXPECT_EQ(split.ranks[2].sequences.size(), 1U);
  EXPECT_TRUE(split.ranks[3].input_ids.empty());
  const TokenSplit alone = split_tokens(batch_of({100}).view(), {.size = 4});
  EXPECT_FALSE(alone.gathers);
}

TEST(TokenSplit, MixedBatchesAreCoveredAndFitTheRanks) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::int32_t> seqlens(1 + random() % 50);
    for (std::int32_t& n : seqlens) n = static_cast<std::int32_t>(1 + random() % 600);
    for (std::size_t k = 0; k < random() % 4; ++k) {
      seqlens[random() % seqlens.size()] = static_cast<std::int32_t>(1000 + random() % 9000);
    }
    const Batch batch = batch_of(seqlens);
    for (const int size : {1, 2, 4, 8}) {
      const TokenSplit split = split_tokens(batch.view(), {.size = size, .pair_cost = kPairCost4B});
      expect_covers(batch, split);
      const std::int64_t most = split_tokens_per_rank_max(batch.view().total_tokens(), size);
      for (const TokenShare& share : split.ranks) {
        EXPECT_LE(static_cast<std::int64_t>(share.input_ids.size()), most);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::worker
