#include "worker/engine/single_engine.hpp"

#include <algorithm>
#include <array>
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
      : options_(options),
        model_(value_or_fatal(read_model_folder(options.model_dir))),
        config_(model_.config),
        backend_(std::move(backend)),
        free_bytes_(backend_->free_memory_bytes()),
        limits_(fit_limits(options, config_, *backend_, free_bytes_)),
        pipeline_(
            PassCutter(config_, piece_seconds(options)),
            {.launch = [this](const PassPiece& piece) { return launch(piece); },
             .wait = [this](const PassPiece& piece, std::uint64_t cut) { wait_for(piece, cut); }},
            kEngineSlots, pieces_ahead(options)) {
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
    for (Slot& slot : slots_) {
      slot.on_device = backend_->make_slot(limits_, encoder_shape(config_));
    }
    rehearse();
    if (options.measure_cost) {
      info_.cost = measure_cost(*this);
    }
    backend_->seal();
  }

  const EngineInfo& info() const override { return info_; }
  int slots() const override { return kBatchSlots; }

  Result<void> check(const PackedBatchView& batch) const override {
    return check_batch(batch, limits_, config_.vocab_size);
  }

  void enqueue(int slot, const PackedBatchView& batch) override {
    CHECK(check(batch).ok());
    Slot& s = at(slot);
    s.input_ids.assign(batch.input_ids.begin(), batch.input_ids.end());
    s.cu_seqlens.assign(batch.cu_seqlens.begin(), batch.cu_seqlens.end());
    if (slot == kExpressSlot) {
      CHECK(batch.total_tokens() <= info_.express_tokens);
      pipeline_.add_express(slot);
    } else {
      pipeline_.add(slot, pass_cost(options_, batch, info_.cost));
    }
  }
  bool wait_unless(int slot, const std::function<bool()>& interrupted) override {
    return pipeline_.run_until_done(slot, interrupted);
  }
  std::span<const float> vectors(int slot) const override {
    return backend_->vectors(*at(slot).on_device);
  }
  std::span<const std::uint8_t> finite(int slot) const override {
    return backend_->finite(*at(slot).on_device);
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
    const RecordedBatch batch(size);
    encoder_->start(*at(slot).on_device, batch.view(), region_of(slot))->run_all();
    backend_->wait(*at(slot).on_device);
  }

  struct Slot {
    std::unique_ptr<kernels::BatchSlot> on_device;
    std::vector<std::int32_t> input_ids;
    std::vector<std::int32_t> cu_seqlens;
    std::unique_ptr<Encoder::Pass> pass;
  };
  Slot& at(int slot) { return slots_.at(static_cast<std::size_t>(slot)); }
  const Slot& at(int slot) const { return slots_.at(static_cast<std::size_t>(slot)); }

  // The cut behind the piece, or that its pass is queued whole.
  std::uint64_t launch(const PassPiece& piece) {
    Slot& slot = at(piece.slot);
    if (piece.first_step == 0) {
      slot.pass = encoder_->start(*slot.on_device, {slot.input_ids, slot.cu_seqlens, {}},
                                  region_of(piece.slot));
    } else if (!slot.pass->done()) {
      backend_->resume(*slot.on_device);
    }
    slot.pass->run(piece.steps);
    return slot.pass->done() ? kQueuedWhole : backend_->cut(*slot.on_device);
  }
  void wait_for(const PassPiece& piece, std::uint64_t cut) {
    if (cut == kQueuedWhole) {
      backend_->wait(*at(piece.slot).on_device);
    } else {
      backend_->wait_cut(cut);
    }
  }
  static constexpr std::uint64_t kQueuedWhole = ~std::uint64_t{0};

  const EngineOptions options_;
  const ModelFolder model_;
  const ModelConfig& config_;
  const std::unique_ptr<kernels::Backend> backend_;
  const std::size_t free_bytes_;  // before anything was taken
  const kernels::BatchLimits limits_;
  EngineInfo info_;
  std::unique_ptr<Encoder> encoder_;
  std::array<Slot, kEngineSlots> slots_;
  PassPipeline pipeline_;
};

}  // namespace

std::unique_ptr<Engine> make_single_engine(const EngineOptions& options,
                                           std::unique_ptr<kernels::Backend> backend) {
  return std::make_unique<SingleEngine>(options, std::move(backend));
}

}  // namespace tessera::worker
