#include "worker/engine/module_engine.hpp"

#include <array>
#include <utility>

#include "common/log.hpp"
#include "worker/engine/engine_plan.hpp"
#include "worker/engine/vector_modules.hpp"

namespace tessera::worker {
namespace {

class ModuleEngine final : public Engine {
 public:
  ModuleEngine(const ModelFolder& folder, std::unique_ptr<Engine> engine)
      : engine_(std::move(engine)), modules_(folder), info_(engine_->info()) {
    CHECK(info_.hidden_size == modules_.in_features());
    CHECK(engine_->slots() < static_cast<int>(slots_.size()));
    info_.hidden_size = modules_.out_features();
    for (Slot& slot : slots_) {
      const auto sequences = static_cast<std::size_t>(info_.max_sequences);
      slot.vectors.reserve(sequences * static_cast<std::size_t>(info_.hidden_size));
      slot.finite.reserve(sequences);
    }
    log::info("Dense modules turn {} numbers into {}, on the host in float32",
              modules_.in_features(), modules_.out_features());
  }

  const EngineInfo& info() const override { return info_; }
  int slots() const override { return engine_->slots(); }
  Result<void> check(const kernels::PackedBatchView& batch) const override {
    return engine_->check(batch);
  }

  void enqueue(int slot, const kernels::PackedBatchView& batch) override {
    at(slot).sequences = static_cast<std::size_t>(batch.num_sequences());
    engine_->enqueue(slot, batch);
  }
  bool wait_unless(int slot, const std::function<bool()>& interrupted) override {
    if (!engine_->wait_unless(slot, interrupted)) {
      return false;
    }
    Slot& s = at(slot);
    const auto in = static_cast<std::size_t>(modules_.in_features());
    const auto finite = engine_->finite(slot).first(s.sequences);
    s.finite.assign(finite.begin(), finite.end());
    s.vectors.resize(s.sequences * static_cast<std::size_t>(info_.hidden_size));
    modules_.apply(engine_->vectors(slot).first(s.sequences * in), s.vectors, s.finite);
    return true;
  }

  std::span<const float> vectors(int slot) const override { return slots_.at(index(slot)).vectors; }
  std::span<const std::uint8_t> finite(int slot) const override {
    return slots_.at(index(slot)).finite;
  }

 private:
  struct Slot {
    std::size_t sequences = 0;
    std::vector<float> vectors;
    std::vector<std::uint8_t> finite;
  };
  static std::size_t index(int slot) { return static_cast<std::size_t>(slot); }
  Slot& at(int slot) { return slots_.at(index(slot)); }

  const std::unique_ptr<Engine> engine_;
  const VectorModules modules_;
  EngineInfo info_;
  std::array<Slot, kEngineSlots> slots_;
};

}  // namespace

std::unique_ptr<Engine> with_modules(const EngineOptions& options, std::unique_ptr<Engine> engine) {
  const ModelFolder folder = value_or_fatal(read_model_folder(options.model_dir));
  if (dense_weight_files(folder).empty()) {
    return engine;
  }
  return std::make_unique<ModuleEngine>(folder, std::move(engine));
}

}  // namespace tessera::worker
