#include "worker/engine/single_engine.hpp"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "common/log.hpp"
#include "worker/encoder/encoder.hpp"
#include "worker/engine/cost_probe.hpp"
#include "worker/engine/engine_plan.hpp"
#include "worker/engine/recorded_batch.hpp"

namespace tessera::worker {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::PackedBatchView;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class SingleEngine final : public Engine {
 public:
  SingleEngine(const EngineOptions& options, std::unique_ptr<kernels::Backend> backend)
      : model_(value_or_fatal(read_model_folder(options.model_dir))),
        config_(model_.config),
        backend_(std::move(backend)),
        free_bytes_(backend_->free_memory_bytes()),
        limits_(fit_limits(options, config_, *backend_, free_bytes_)) {
    const auto folder = value_or_fatal(open_weights(model_));
    FolderHashing hashing(options, model_, folder);
    info_ = describe_engine(model_, *backend_, limits_);
    const MemoryPlan plan(config_, *backend_, limits_);
    log::info("memory on {}, {:.3f} GB free, {:.2f} of it at most:\n{}", backend_->name(),
              static_cast<double>(free_bytes_) / 1e9, options.mem_fraction, plan.text());
    const auto start = Clock::now();
    EncoderWeights weights = load_weights(*backend_, config_, folder);
    log::info("weights loaded in {:.2f} s", seconds_since(start));
    hashing.identify(info_, kernels::to_string(backend_->activation_type()));
    encoder_ = std::make_unique<Encoder>(*backend_, config_, std::move(weights),
                                         allocate_workspace(*backend_, plan.workspace(config_)),
                                         EncoderPlace{.length = pooled_length(model_)});
    for (int i = 0; i < kEngineSlots; ++i) {
      slots_.push_back(backend_->make_slot(limits_, encoder_shape(config_)));
    }
    rehearse();
    if (options.measure_cost) {
      info_.cost = measure_cost(*this);
    }
    backend_->seal();
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
  // Every small batch is recorded and every kernel's code is on the device before the first query.
  // A device that records nothing has nothing to get ready either.
  void rehearse() {
    const std::vector<kernels::RecordedSize> sizes = backend_->recorded_sizes();
    if (sizes.empty()) {
      return;
    }
    const auto start = Clock::now();
    const std::int64_t many = std::min<std::int64_t>(2048, limits_.max_seqlen);
    for (const kernels::RecordedSize& size :
         {kernels::RecordedSize{std::min<std::int64_t>(16, many), 1},
          {many, 1},
          {many, many / 32}}) {
      pass(0, {.tokens = size.tokens,
               .sequences = std::clamp<std::int64_t>(size.sequences, 1, limits_.max_sequences)});
    }
    record_all(*backend_, sizes, [this](int slot, const auto& size) { pass(slot, size); });
    const std::size_t left = backend_->free_memory_bytes();
    log::info("{} passes recorded in {:.2f} s; {:.3f} GB of the device are in use",
              sizes.size() * slots_.size(), seconds_since(start),
              static_cast<double>(free_bytes_ - std::min(left, free_bytes_)) / 1e9);
  }

  void pass(int slot, const kernels::RecordedSize& size) {
    encoder_->forward(at(slot), RecordedBatch(size).view());
    backend_->wait(at(slot));
  }

  kernels::BatchSlot& at(int slot) const {
    CHECK(slot >= 0 && slot < kEngineSlots);
    return *slots_[static_cast<std::size_t>(slot)];
  }

  const ModelFolder model_;
  const ModelConfig& config_;
  const std::unique_ptr<kernels::Backend> backend_;
  const std::size_t free_bytes_;  // before anything was taken
  const kernels::BatchLimits limits_;
  EngineInfo info_;
  std::unique_ptr<Encoder> encoder_;
  std::vector<std::unique_ptr<kernels::BatchSlot>> slots_;
};

}  // namespace

std::unique_ptr<Engine> make_single_engine(const EngineOptions& options,
                                           std::unique_ptr<kernels::Backend> backend) {
  return std::make_unique<SingleEngine>(options, std::move(backend));
}

}  // namespace tessera::worker
