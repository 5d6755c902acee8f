#include "worker/engine.hpp"

#include <chrono>
#include <utility>
#include <vector>

#include "common/log.hpp"
#include "worker/cost_probe.hpp"
#include "worker/device_choice.hpp"
#include "worker/encoder.hpp"
#include "worker/engine_plan.hpp"
#include "worker/group_engine.hpp"

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

class SingleEngine final : public Engine {
 public:
  explicit SingleEngine(const EngineOptions& options)
      : config_(value_or_fatal(read_model_config(options.model_dir))),
        backend_(make_backend(options)),
        limits_(fit_limits(options, config_, *backend_, backend_->free_memory_bytes())) {
    const auto folder = value_or_fatal(SafetensorsFolder::open(options.model_dir));
    info_ = describe_engine(options, config_, folder, *backend_, limits_);
    const MemoryPlan plan(config_, *backend_, limits_);
    log::info("memory on {}:\n{}", backend_->name(), plan.text());
    const auto start = std::chrono::steady_clock::now();
    EncoderWeights weights = load_weights(*backend_, config_, folder);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    log::info("weights loaded in {:.2f} s", taken.count());
    encoder_ = std::make_unique<Encoder>(*backend_, config_, std::move(weights),
                                         allocate_workspace(*backend_, plan.workspace(config_)));
    for (int i = 0; i < kEngineSlots; ++i) {
      slots_.push_back(backend_->make_slot(limits_, encoder_shape(config_)));
    }
    if (options.measure_cost) {
      info_.cost = measure_cost(*this);
    }
  }

  const EngineInfo& info() const override { return info_; }
  int slots() const override { return kEngineSlots; }

  Result<void> check(const PackedBatchView& batch) const override {
    return check_batch(batch, limits_, config_.vocab_size);
  }

  void enqueue(int slot, const PackedBatchView& batch) override {
    CHECK(check(batch).ok());
    encoder_->forward(at(slot), batch);
  }
  void wait(int slot) override { backend_->wait(at(slot)); }
  std::span<const float> vectors(int slot) const override { return backend_->vectors(at(slot)); }
  std::span<const std::uint8_t> finite(int slot) const override {
    return backend_->finite(at(slot));
  }

 private:
  kernels::BatchSlot& at(int slot) const {
    CHECK(slot >= 0 && slot < kEngineSlots);
    return *slots_[static_cast<std::size_t>(slot)];
  }

  const ModelConfig config_;
  const std::unique_ptr<kernels::Backend> backend_;
  const kernels::BatchLimits limits_;
  EngineInfo info_;
  std::unique_ptr<Encoder> encoder_;
  std::vector<std::unique_ptr<kernels::BatchSlot>> slots_;
};

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

std::unique_ptr<Engine> Engine::create(const EngineOptions& options) {
  if (options.device == "cpu" && options.devices.empty()) {
    const int ranks = value_or_fatal(choose_cpu_ranks(options.tp));
    return ranks > 1 ? make_cpu_group_engine(options, ranks)
                     : std::make_unique<SingleEngine>(options);
  }
  if (options.devices.empty() && options.tp == "auto") {
    return std::make_unique<SingleEngine>(options);
  }
  const DeviceChoice choice = value_or_fatal(choose_devices(
      options.devices.empty() ? "all" : options.devices, options.tp, kernels::cuda_device_count()));
  if (!choice.reason.empty()) log::info("{}", choice.reason);
  if (choice.devices.size() > 1) return make_cuda_group_engine(options, choice.devices);
  EngineOptions single = options;
  single.device = "cuda:" + std::to_string(choice.devices.front());
  return std::make_unique<SingleEngine>(single);
}

}  // namespace tessera
