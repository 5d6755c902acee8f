#include "worker/engine/cost_probe.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

std::vector<CostSample> samples_of(const CostModel& model) {
  std::vector<CostSample> samples;
  for (const double len : {16.0, 32.0, 256.0, 2048.0, 8192.0}) {
    for (const double count : {1.0, 8.0}) {
      const double tokens = len * count, squares = tokens * len;
      samples.push_back({tokens, squares, model.seconds(tokens, squares)});
    }
  }
  return samples;
}

TEST(FitCost, FindsTheModelThatMadeTheSamples) {
  const CostModel truth{.fixed_s = 0.02, .per_token_s = 1e-4, .per_square_s = 3e-9};
  const CostModel found = fit_cost(samples_of(truth));
  EXPECT_NEAR(found.fixed_s, truth.fixed_s, 1e-6);
  EXPECT_NEAR(found.per_token_s, truth.per_token_s, 1e-9);
  EXPECT_NEAR(found.per_square_s, truth.per_square_s, 1e-13);
}

TEST(FitCost, NeverGivesATermBelowZero) {
  // Faster per token the longer: a free fit would take a negative square term.
  auto samples = samples_of({.fixed_s = 0, .per_token_s = 1e-4, .per_square_s = 0});
  for (CostSample& sample : samples) {
    sample.seconds -= 1e-9 * sample.sum_of_squares * 0.5;
    sample.seconds = std::max(sample.seconds, 1e-6);
  }
  const CostModel found = fit_cost(samples);
  EXPECT_GE(found.fixed_s, 0);
  EXPECT_GT(found.per_token_s, 0);
  EXPECT_GE(found.per_square_s, 0);
}

TEST(FitCost, ManagesWithOneShape) {
  const std::vector<CostSample> samples = {{100, 1000, 0.5}, {100, 1000, 0.5}};
  const CostModel found = fit_cost(samples);
  EXPECT_NEAR(found.seconds(100, 1000), 0.5, 1e-3);
}

TEST(MeasureCost, GivesAModelOfTheDemoModel) {
  const auto engine = create_engine(
      {.model_dir = "deploy/data/demo-model", .max_batch_tokens = 1024, .max_seqlen = 512});
  const CostModel& cost = engine->info().cost;
  EXPECT_GT(cost.seconds(512, 512.0 * 512), 0);
  EXPECT_GE(cost.fixed_s, 0);
  EXPECT_GE(cost.per_token_s, 0);
  EXPECT_GE(cost.per_square_s, 0);
}

}  // namespace
}  // namespace tessera::worker
