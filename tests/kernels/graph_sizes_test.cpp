#include "kernels/cuda/backend/graph_sizes.hpp"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace tessera::kernels::cuda {
namespace {

constexpr BatchLimits kLimits{.max_tokens = 32768, .max_sequences = 4096, .max_seqlen = 8192};

TEST(GraphSizes, HoldTheBatchAndOneSequenceOfFiller) {
  for (std::int64_t tokens = 1; tokens <= 1200; ++tokens) {
    for (std::int64_t sequences = 1; sequences <= tokens; sequences += 3) {
      const auto size = graph_size(tokens, sequences, kLimits);
      if (!size) continue;
      EXPECT_GE(size->tokens, tokens);
      EXPECT_GT(size->sequences, sequences);
      EXPECT_LE(size->tokens, std::max(tokens + 7, tokens * 5 / 4));
    }
  }
  EXPECT_EQ(graph_size(24, 1, kLimits), (GraphSize{24, 4}));
  EXPECT_EQ(graph_size(25, 4, kLimits), (GraphSize{32, 16}));
}

TEST(GraphSizes, AreNoneForLargeBatchesAndTextsOfOneToken) {
  EXPECT_FALSE(graph_size(1025, 4, kLimits));
  EXPECT_FALSE(graph_size(1000, 256, kLimits));
  EXPECT_FALSE(graph_size(3, 3, kLimits));
  EXPECT_FALSE(graph_size(1, 1, kLimits));
  EXPECT_FALSE(graph_size(100, 1, {.max_tokens = 64, .max_sequences = 64, .max_seqlen = 64}));
  EXPECT_FALSE(graph_size(20, 5, {.max_tokens = 64, .max_sequences = 8, .max_seqlen = 64}));
}

// A text has two tokens or more: whatever small batch of such texts comes, its graph is there.
TEST(GraphSizes, EveryBatchOfTextsHasARecording) {
  for (const std::int64_t longest : {1000, 8192}) {
    BatchLimits limits = kLimits;
    limits.max_seqlen = longest;
    std::set<GraphSize> recorded;
    for (const RecordedSize& batch : recorded_batches(limits)) {
      EXPECT_LE(batch.tokens, batch.sequences * longest);
      const auto size = graph_size(batch.tokens, batch.sequences, limits);
      ASSERT_TRUE(size);
      EXPECT_EQ(size->tokens, batch.tokens);
      EXPECT_TRUE(recorded.insert(*size).second) << "recorded twice";
    }
    EXPECT_LT(recorded.size(), 100U);
    for (std::int64_t tokens = 2; tokens <= 1024; ++tokens) {
      for (std::int64_t sequences = (tokens + longest - 1) / longest; 2 * sequences <= tokens;
           ++sequences) {
        const auto size = graph_size(tokens, sequences, limits);
        if (size) {
          EXPECT_TRUE(recorded.contains(*size)) << tokens << " in " << sequences;
        }
      }
    }
  }
}

// What a rank of a group gets of a long text: one part or two, and pieces end at the alignment.
TEST(GraphSizes, EveryPieceOfALongTextHasARecording) {
  BatchLimits limits = kLimits;
  limits.parts = true;
  std::set<std::pair<GraphSize, BatchKind>> recorded;
  for (const RecordedSize& batch : recorded_batches(limits)) {
    const auto size = graph_size(batch.tokens, batch.sequences, limits);
    ASSERT_TRUE(size);
    EXPECT_TRUE(recorded.insert({*size, batch.kind}).second) << "recorded twice";
  }
  for (std::int64_t tokens = 2; tokens <= 1024; ++tokens) {
    for (std::int64_t parts = 1; parts <= 3 && parts < tokens; ++parts) {
      const GraphSize size = graph_size(tokens, parts, limits).value();
      EXPECT_TRUE(recorded.contains({size, BatchKind::kParts})) << tokens << " in " << parts;
      if (tokens % kSegmentAlignment == 0) {
        EXPECT_TRUE(recorded.contains({size, BatchKind::kPartsWithoutEnd})) << tokens;
      }
    }
  }
  EXPECT_EQ(recorded.size(), recorded_batches(kLimits).size() + 24 + 8);
}

}  // namespace
}  // namespace tessera::kernels::cuda
