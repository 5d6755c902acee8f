#include "worker/engine.hpp"

#include <utility>

#include "common/log.hpp"
#include "worker/device_choice.hpp"
#include "worker/engine_plan.hpp"
#include "worker/group_engine.hpp"
#include "worker/module_engine.hpp"
#include "worker/single_engine.hpp"

namespace tessera {
namespace {

using kernels::PackedBatchView;

std::unique_ptr<kernels::Backend> make_backend(const EngineOptions& options) {
  if (options.device == "cpu") {
    return kernels::make_cpu_backend(
        {.threads = options.threads, .weight_type = options.weight_type});
  }
  return kernels::make_cuda_backend({.device = cuda_index(options.device)});
}

std::unique_ptr<Engine> make_engine_on(const EngineOptions& options) {
  return make_single_engine(options, make_backend(options));
}

}  // namespace

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

namespace {

std::unique_ptr<Engine> create_encoder(const EngineOptions& options) {
  if (options.device == "cpu" && options.devices.empty()) {
    const int ranks = value_or_fatal(choose_cpu_ranks(options.tp));
    return ranks > 1 ? make_cpu_group_engine(options, ranks) : make_engine_on(options);
  }
  if (options.devices.empty() && options.tp == "auto") {
    return make_engine_on(options);
  }
  const DeviceChoice choice = value_or_fatal(choose_devices(
      options.devices.empty() ? "all" : options.devices, options.tp, kernels::cuda_device_count()));
  if (!choice.reason.empty()) log::info("{}", choice.reason);
  if (choice.devices.size() > 1) return make_cuda_group_engine(options, choice.devices);
  EngineOptions single = options;
  single.device = "cuda:" + std::to_string(choice.devices.front());
  return make_engine_on(single);
}

}  // namespace

std::unique_ptr<Engine> Engine::create(const EngineOptions& options) {
  return with_modules(options, create_encoder(options));
}

}  // namespace tessera
