#include "worker/split/shard.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace tessera::worker {
namespace {

using ::testing::HasSubstr;

ModelConfig config_4b() {
  ModelConfig config;
  config.hidden_size = 2560;
  config.num_hidden_layers = 36;
  config.intermediate_size = 9728;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 151665;
  return config;
}

TEST(Shard, TheThreeModelSizesSplitOverTwoFourAndEight) {
  ModelConfig config_06b = config_4b();
  config_06b.num_attention_heads = 16;
  config_06b.intermediate_size = 3072;
  ModelConfig config_8b = config_4b();
  config_8b.intermediate_size = 12288;
  for (const ModelConfig& config : {config_06b, config_4b(), config_8b}) {
    for (const int size : {1, 2, 4, 8}) EXPECT_TRUE(check_tensor_split(config, size).ok()) << size;
  }
}

TEST(Shard, RefusesWithOneSentenceWhatDoesNotDivide) {
  ModelConfig config = config_4b();
  EXPECT_THAT(check_tensor_split(config, 3).error().message,
              HasSubstr("1, 2, 4 or 8 ranks, not 3"));
  EXPECT_THAT(check_tensor_split(config, 16).error().message, HasSubstr("not 16"));
  config.num_key_value_heads = 2;
  EXPECT_THAT(check_tensor_split(config, 4).error().message,
              HasSubstr("2 key-value heads do not divide by 4"));
  config = config_4b();
  config.intermediate_size = 9736;
  EXPECT_THAT(check_tensor_split(config, 2).error().message,
              HasSubstr("intermediate size 9736 does not divide by 16"));
}

TEST(Shard, SharesCoverTheMatrixOnce) {
  constexpr std::int64_t kRows = 16, kCols = 24;
  std::vector<float> data(kRows * kCols);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const kernels::MatrixSlice whole{.data = reinterpret_cast<const std::byte*>(data.data()),
                                   .type = kernels::DType::kFloat32,
                                   .rows = kRows,
                                   .cols = kCols,
                                   .row_stride = kCols};
  const auto element = [](const kernels::MatrixSlice& m, std::int64_t row, std::int64_t col) {
    float value = 0;
    std::memcpy(&value, m.data + static_cast<std::size_t>(row * m.row_stride + col) * 4, 4);
    return value;
  };
  for (const int size : {1, 2, 4, 8}) {
    for (int rank = 0; rank < size; ++rank) {
      const kernels::MatrixSlice rows = row_share(whole, {rank, size});
      const kernels::MatrixSlice columns = column_share(whole, {rank, size});
      ASSERT_EQ(rows.rows, kRows / size);
      ASSERT_EQ(rows.cols, kCols);
      ASSERT_EQ(columns.rows, kRows);
      ASSERT_EQ(columns.cols, kCols / size);
      for (std::int64_t r = 0; r < rows.rows; ++r) {
        EXPECT_EQ(element(rows, r, 5), element(whole, rank * rows.rows + r, 5));
      }
      for (std::int64_t c = 0; c < columns.cols; ++c) {
        EXPECT_EQ(element(columns, 7, c), element(whole, 7, rank * columns.cols + c));
      }
    }
  }
}

TEST(Shard, ShapeAndBytesOfOneRank) {
  const kernels::EncoderShape shape = shard_shape(config_4b(), 4);
  EXPECT_EQ(shape.attention.num_q_heads, 8);
  EXPECT_EQ(shape.attention.num_kv_heads, 2);
  EXPECT_EQ(shape.hidden_size, 2560);
  EXPECT_EQ(shape.intermediate_size, 2432);
  const std::int64_t whole = shard_weight_bytes(config_4b(), 1, kernels::DType::kBFloat16);
  const std::int64_t quarter = shard_weight_bytes(config_4b(), 4, kernels::DType::kBFloat16);
  const std::int64_t split = 2 * config_4b().linear_parameters_per_layer() * 36;
  EXPECT_EQ(whole - quarter, split - split / 4);
}

}  // namespace
}  // namespace tessera::worker
