#include "coordinator/core/flow/results.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/float16.hpp"

namespace tessera::coordinator {
namespace {

using protocol::VectorType;

Outcome vector_outcome(std::vector<float> values, std::uint32_t tokens, std::uint32_t cut = 0) {
  auto embedding = std::make_shared<Embedding>();
  embedding->tokens = tokens;
  embedding->tokens_cut = cut;
  embedding->values.resize(values.size());
  to_float16(values, embedding->values);
  return {.embedding = std::move(embedding), .error = nullptr};
}

Outcome error_outcome(ErrorCode code, std::string message) {
  return {.embedding = nullptr, .error = std::make_unique<Error>(Error{code, std::move(message)})};
}

std::vector<Outcome> example() {
  std::vector<Outcome> outcomes;
  outcomes.push_back(vector_outcome({0.5F, 0.5F, 0.5F, 0.5F}, 3));
  outcomes.push_back(error_outcome(ErrorCode::kTooLong, std::string(1000, 'x')));
  outcomes.push_back(vector_outcome({0.6F, 0.0F, 0.8F, 0.0F}, 5, 2));
  return outcomes;
}

std::vector<float> floats(const protocol::ResultBlock& block) {
  std::vector<float> values(block.payload.size() / 4);
  std::memcpy(values.data(), block.payload.data(), block.payload.size());
  return values;
}

TEST(Results, KeepTheItemsOrderAroundErrors) {
  const auto block = assemble(example(), {.dimensions = 4}, {.hits = 1, .joins = 2, .misses = 3});
  EXPECT_EQ(block.codes, (std::vector<std::uint8_t>{0, 7, 0}));
  EXPECT_EQ(block.token_counts, (std::vector<std::uint32_t>{3, 0, 5}));
  EXPECT_EQ(block.tokens_cut, (std::vector<std::uint32_t>{0, 0, 2}));
  ASSERT_EQ(block.errors.size(), 1U);
  EXPECT_EQ(block.errors[0].index, 1U);
  EXPECT_LE(block.errors[0].message.size(), 200U);
  EXPECT_EQ(block.cache_hits, 1U);
  EXPECT_EQ(block.cache_joins, 2U);
  EXPECT_EQ(block.cache_misses, 3U);
  const auto values = floats(block);
  ASSERT_EQ(values.size(), 8U);
  EXPECT_NEAR(values[0], 0.5F, 1e-6);
  EXPECT_NEAR(values[6], 0.8F, 1e-3);
}

TEST(Results, NarrowVectorsHaveUnitLengthAgain) {
  for (const VectorType type : {VectorType::kFloat32, VectorType::kFloat16}) {
    const auto block = assemble(example(), {.dimensions = 2, .vector_type = type}, {});
    std::vector<float> values = floats(block);
    if (type == VectorType::kFloat16) {
      values.resize(block.payload.size() / 2);
      from_float16(
          std::span(reinterpret_cast<const std::uint16_t*>(block.payload.data()), values.size()),
          values);
    }
    ASSERT_EQ(values.size(), 4U);
    EXPECT_NEAR(values[0], std::sqrt(0.5F), 1e-3);
    EXPECT_NEAR(values[2], 1.0F, 1e-3);
    EXPECT_EQ(values[3], 0.0F);
  }
}

TEST(Results, FullWidthFloat16IsTheStoredVector) {
  const auto outcomes = example();
  const auto block = assemble(outcomes, {.dimensions = 4, .vector_type = VectorType::kFloat16}, {});
  const auto& stored = outcomes[0].embedding->values;
  ASSERT_EQ(block.payload.size(), 16U);
  EXPECT_EQ(std::memcmp(block.payload.data(), stored.data(), 8), 0);
}

TEST(Results, OnlyErrorsGiveNoPayload) {
  std::vector<Outcome> outcomes;
  outcomes.push_back(error_outcome(ErrorCode::kEmptyText, "empty"));
  const auto block = assemble(outcomes, {.dimensions = 4}, {});
  EXPECT_TRUE(block.payload.empty());
  EXPECT_TRUE(block.tokens_cut.empty());
}

}  // namespace
}  // namespace tessera::coordinator
