#include <gtest/gtest.h>

#include "tests/kernels/attention_case.hpp"
#include "tests/support/gpu_test.hpp"

namespace tessera::testing {
namespace {

using kernels::cuda::AttentionPlan;

// bf16 probabilities and a bf16 result: about 2^-9 each.
constexpr double kTolerance = 8e-3;

class AttentionOnGpu : public GpuTest {
 protected:
  // Both forms where the GPU has both.
  static std::vector<AttentionPlan> plans(std::int64_t q_heads, std::int64_t kv_heads) {
    std::vector<AttentionPlan> plans{device_plan(q_heads, kv_heads)};
    if (plans[0].form != AttentionPlan::Form::kMma) {
      plans.push_back(kernels::cuda::plan_attention(plans[0].shape, 80, plans[0].num_sms));
    }
    return plans;
  }

  static void expect_right(std::int64_t q_heads, std::int64_t kv_heads,
                           const std::vector<std::int32_t>& seqlens, float score_scale = 1.0F) {
    for (const AttentionPlan& plan : plans(q_heads, kv_heads)) {
      AttentionCase batch(plan, seqlens, 11, score_scale);
      const std::vector<std::uint16_t> out = batch.run();
      EXPECT_LT(batch.worst_error(out), kTolerance)
          << q_heads << " / " << kv_heads << " heads, " << seqlens.size() << " sequences from "
          << seqlens[0] << " tokens, form " << static_cast<int>(plan.form);
      EXPECT_EQ(batch.run(), out) << "another run gave other bits";
    }
  }
};

TEST_F(AttentionOnGpu, SingleSequences) {
  for (const std::int32_t seqlen :
       {1, 2, 16, 17, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 511, 513, 1000, 2048, 4097}) {
    expect_right(4, 1, {seqlen});
  }
}

TEST_F(AttentionOnGpu, MixedBatches) {
  expect_right(32, 8, {129, 1, 64, 511, 2, 17, 128, 63, 65, 127, 300, 5, 1024, 33});
  expect_right(32, 8, std::vector<std::int32_t>(70, 19));
  expect_right(16, 8, {200, 640, 3, 90, 1500});
}

TEST_F(AttentionOnGpu, HeadCountsOfEveryRank) {
  for (const auto& [q, kv] :
       {std::pair{16, 4}, {8, 2}, {4, 1}, {8, 4}, {4, 2}, {2, 1}, {8, 8}, {6, 2}, {16, 2}}) {
    expect_right(q, kv, {150, 40, 700});
  }
}

TEST_F(AttentionOnGpu, SharpAndFlatScores) {
  expect_right(8, 2, {700, 77}, 20.0F);
  expect_right(8, 2, {700, 77}, 0.01F);
}

TEST_F(AttentionOnGpu, NeighboursDoNotChangeASequence) {
  const std::vector<std::int32_t> seqlens{70, 300, 1, 129, 515};
  for (const AttentionPlan& plan : plans(16, 4)) {
    AttentionCase batch(plan, seqlens, 3);
    const std::vector<std::uint16_t> together = batch.run();
    for (std::size_t i = 0; i < seqlens.size(); ++i) {
      AttentionCase alone(plan, {seqlens[i]}, 4);
      alone.set_qkv(batch.qkv().subspan(static_cast<std::size_t>(
          batch.first_token(static_cast<std::int64_t>(i)) * plan.shape.qkv_width())));
      const std::vector<std::uint16_t> out = alone.run();
      const auto count = static_cast<std::size_t>(seqlens[i] * plan.shape.q_width());
      const std::span<const std::uint16_t> part(
          together.data() + batch.first_token(static_cast<std::int64_t>(i)) * plan.shape.q_width(),
          count);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), out.begin())) << "sequence " << i;
    }
  }
}

// A recorded graph holds bounds instead of counts.
TEST_F(AttentionOnGpu, BoundsInsteadOfCounts) {
  for (const AttentionPlan& plan : plans(16, 4)) {
    AttentionCase batch(plan, {300, 20, 129}, 5);
    const std::vector<std::uint16_t> exact = batch.run();
    batch.use_bounds();
    EXPECT_EQ(batch.run(), exact);
  }
}

}  // namespace
}  // namespace tessera::testing
