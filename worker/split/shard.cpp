#include "worker/split/shard.hpp"

#include <string>

#include "common/check.hpp"

namespace tessera::worker {
namespace {

constexpr std::int64_t kFeatureMultiple = 8;  // one 16-byte access of bf16

Error refusal(int size, const std::string& why) {
  return {ErrorCode::kInvalidArgument,
          "a tensor-parallel group of " + std::to_string(size) + " cannot hold this model: " + why};
}

std::string counted(std::int64_t count, const char* what) {
  return std::to_string(count) + " " + what;
}

}  // namespace

Result<void> check_tensor_split(const ModelConfig& config, int size) {
  if (size != 1 && size != 2 && size != 4 && size != 8) {
    return Error{ErrorCode::kInvalidArgument,
                 "a group has 1, 2, 4 or 8 ranks, not " + std::to_string(size)};
  }
  if (config.num_key_value_heads % size != 0) {
    return refusal(size, "its " + counted(config.num_key_value_heads, "key-value heads") +
                             " do not divide by " + std::to_string(size));
  }
  if (config.num_attention_heads % size != 0) {
    return refusal(size, "its " + counted(config.num_attention_heads, "query heads") +
                             " do not divide by " + std::to_string(size));
  }
  if (config.intermediate_size % (size * kFeatureMultiple) != 0) {
    return refusal(size, "its intermediate size " + std::to_string(config.intermediate_size) +
                             " does not divide by " + std::to_string(size * kFeatureMultiple));
  }
  return {};
}

kernels::EncoderShape shard_shape(const ModelConfig& config, int size) {
  CHECK(check_tensor_split(config, size).ok());
  return {.attention = {.num_q_heads = config.num_attention_heads / size,
                        .num_kv_heads = config.num_key_value_heads / size,
                        .head_dim = config.head_dim},
          .hidden_size = config.hidden_size,
          .intermediate_size = config.intermediate_size / size};
}

kernels::MatrixSlice row_share(const kernels::MatrixSlice& whole, const RankShare& share) {
  CHECK(whole.rows % share.size == 0);
  kernels::MatrixSlice part = whole;
  part.rows = whole.rows / share.size;
  part.data += static_cast<std::size_t>(part.rows * share.rank * whole.row_stride) *
               kernels::size_of(whole.type);
  return part;
}

kernels::MatrixSlice column_share(const kernels::MatrixSlice& whole, const RankShare& share) {
  CHECK(whole.cols % share.size == 0);
  kernels::MatrixSlice part = whole;
  part.cols = whole.cols / share.size;
  part.data += static_cast<std::size_t>(part.cols * share.rank) * kernels::size_of(whole.type);
  return part;
}

std::int64_t shard_weight_bytes(const ModelConfig& config, int size, kernels::DType type) {
  const std::int64_t split = config.linear_parameters_per_layer() * config.num_hidden_layers / size;
  const std::int64_t table = config.vocab_size * config.hidden_size;
  const std::int64_t norms =
      config.num_hidden_layers * (2 * config.hidden_size + 2 * config.head_dim) +
      config.hidden_size;
  return (split + table) * static_cast<std::int64_t>(kernels::size_of(type)) +
         norms * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace tessera::worker
