#include "worker/engine/engine.hpp"

namespace tessera::worker {

using kernels::PackedBatchView;

Result<void> check_batch(const PackedBatchView& batch, const kernels::BatchLimits& limits,
                         std::int64_t vocab_size) {
  const auto refuse = [](ErrorCode code, std::string message) {
    return Error{code, std::move(message)};
  };
  const auto cu_seqlens = batch.cu_seqlens;
  if (batch.num_sequences() < 1 || batch.num_sequences() > limits.max_sequences ||
      batch.total_tokens() > limits.max_tokens) {
    return refuse(ErrorCode::kInvalidArgument,
                  "the batch has " + std::to_string(batch.num_sequences()) + " sequences of " +
                      std::to_string(batch.total_tokens()) + " tokens; at most " +
                      std::to_string(limits.max_sequences) + " of " +
                      std::to_string(limits.max_tokens) + " are taken");
  }
  if (cu_seqlens.front() != 0 || cu_seqlens.back() != batch.total_tokens()) {
    return refuse(ErrorCode::kInvalidArgument, "cu_seqlens do not span the batch");
  }
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const std::int64_t len = std::int64_t{cu_seqlens[i + 1]} - cu_seqlens[i];
    if (len <= 0) {
      return refuse(ErrorCode::kInvalidArgument, "a sequence is empty");
    }
    if (len > limits.max_seqlen) {
      return refuse(ErrorCode::kTooLong, "a sequence has " + std::to_string(len) +
                                             " tokens; at most " +
                                             std::to_string(limits.max_seqlen) + " are taken");
    }
  }
  for (const std::int32_t id : batch.input_ids) {
    if (id < 0 || id >= vocab_size) {
      return refuse(
          ErrorCode::kInvalidTokenId,
          "token id " + std::to_string(id) + " is not within 0.." + std::to_string(vocab_size - 1));
    }
  }
  return {};
}

}  // namespace tessera::worker
