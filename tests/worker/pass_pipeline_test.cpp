#include "worker/engine/pass_pipeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace tessera::worker {
namespace {

using ::testing::ElementsAre;

const ModelConfig kConfig{.hidden_size = 64,
                          .num_hidden_layers = 3,
                          .intermediate_size = 128,
                          .num_attention_heads = 1,
                          .num_key_value_heads = 1,
                          .head_dim = 64};
constexpr int kExpress = 2;

PassCost cost(double seconds) {
  return {.tokens = 100, .sum_of_squares = 1000, .seconds = seconds};
}

TEST(PassSteps, NameEveryStepOfEveryStrandOnce) {
  const PassSteps steps(3, 2);
  EXPECT_EQ(steps.count(), 1 + 2 * 4 * 2 + 4);
  std::string order;
  for (int i = 0; i < steps.count(); ++i) {
    const PassSteps::Step step = steps.at(i);
    order.push_back("SpagdLF"[static_cast<std::size_t>(step.kind)]);
    order.append(std::to_string(step.layer)).append(std::to_string(step.strand)).push_back(' ');
  }
  EXPECT_EQ(order,
            "S00 p00 a00 p01 a01 g00 d00 g01 d01 p10 a10 p11 a11 g10 d10 g11 d11 L20 L21 F20 F21 ");
}

TEST(PassCutter, GivesEveryStepOnceInPiecesOfAboutTheSize) {
  PassCutter cutter(kConfig, 0.01);
  cutter.add(0, cost(0.1));
  int next = 0;
  int pieces = 0;
  while (const auto piece = cutter.next()) {
    EXPECT_EQ(piece->first_step, next);
    next += piece->steps;
    ++pieces;
    EXPECT_EQ(piece->ends, next == PassSteps(3, 1).count());
  }
  EXPECT_EQ(next, PassSteps(3, 1).count());
  EXPECT_GE(pieces, 5);
  EXPECT_LE(pieces, 11);
}

TEST(PassCutter, DoesNotCutWhatIsShortOrUnknownOrMustBeWhole) {
  PassCutter cutter(kConfig, 0.01);
  PassCost must = cost(1);
  must.whole = true;
  for (const PassCost& pass : {cost(0.02), cost(0), must}) {
    cutter.add(1, pass);
    const auto piece = cutter.next();
    ASSERT_TRUE(piece);
    EXPECT_TRUE(piece->ends);
    EXPECT_EQ(piece->steps, PassSteps(3, 1).count());
    EXPECT_FALSE(cutter.next());
  }
}

// Writes down what is queued: "0" a piece of slot 0, "0." its last; and what is waited for, "(0)".
class PassPipelineTest : public ::testing::Test {
 protected:
  static std::string name(const PassPiece& piece) {
    std::string text = std::to_string(piece.slot);
    if (piece.ends) text.push_back('.');
    return text;
  }
  std::vector<std::string> log;
  std::uint64_t launched = 0;
  std::uint64_t waited = 0;
  PassPipeline pipeline{PassCutter(kConfig, 0.04),
                        {.launch =
                             [this](const PassPiece& piece) {
                               log.push_back(name(piece));
                               EXPECT_LE(launched - waited, 2U);
                               return launched++;
                             },
                         .wait =
                             [this](const PassPiece& piece, std::uint64_t ticket) {
                               EXPECT_EQ(ticket, waited++);
                               log.push_back(std::string("(").append(name(piece)).append(")"));
                             }},
                        3,
                        2};
  static bool never() { return false; }
};

TEST_F(PassPipelineTest, KeepsTwoPiecesQueuedAndPassesInTheirOrder) {
  pipeline.add(0, cost(1));
  EXPECT_THAT(log, ElementsAre("0", "0"));
  pipeline.add(1, cost(0.05));
  EXPECT_TRUE(pipeline.run_until_done(0, never));
  EXPECT_EQ(std::vector(log.begin(), log.begin() + 4),
            (std::vector<std::string>{"0", "0", "(0)", "0"}));
  // The next pass was queued before the end of this one.
  EXPECT_EQ(std::vector(log.end() - 4, log.end()),
            (std::vector<std::string>{"0.", "(0)", "1.", "(0.)"}));
  EXPECT_TRUE(pipeline.run_until_done(1, never));
  EXPECT_EQ(log.back(), "(1.)");
  EXPECT_EQ(launched, waited);
}

TEST_F(PassPipelineTest, AnExpressBatchGoesBehindWhatIsQueuedAndTheRestBehindIt) {
  pipeline.add(0, cost(1));
  EXPECT_FALSE(pipeline.run_until_done(0, [&] { return log.size() > 4; }));
  log.clear();
  pipeline.add_express(kExpress);
  EXPECT_THAT(log, ElementsAre("2."));
  EXPECT_TRUE(pipeline.run_until_done(kExpress, never));
  // What was queued before runs first; the batch goes on while the express one runs.
  const auto express_ends = std::ranges::find(log, "(2.)");
  ASSERT_NE(express_ends, log.end());
  EXPECT_LE(std::count(log.begin(), express_ends, "(0)"), 2);
  EXPECT_GE(std::count(log.begin(), express_ends, "0"), 1);
  EXPECT_TRUE(pipeline.run_until_done(0, never));
  EXPECT_EQ(log.back(), "(0.)");
}

TEST_F(PassPipelineTest, AnInterruptionIsAskedForBeforeEveryPiece) {
  pipeline.add(0, cost(0.3));
  int asked = 0;
  while (!pipeline.run_until_done(0, [&] { return ++asked % 2 == 0; })) {
  }
  EXPECT_GE(asked, 8);
  EXPECT_EQ(launched, waited);
}

}  // namespace
}  // namespace tessera::worker
