#include "worker/engine.hpp"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "common/log.hpp"
#include "common/model/fingerprint.hpp"
#include "common/model/memory_estimate.hpp"
#include "worker/cost_probe.hpp"
#include "worker/encoder.hpp"

namespace tessera {
namespace {

using kernels::PackedBatchView;

constexpr int kSlots = 2;  // one computes while the other is filled and emptied
constexpr std::int64_t kCpuSeqlenDefault = 8192;
constexpr std::int64_t kBatchTokensDefault = 32768;
constexpr std::int64_t kSequencesMax = 1 << 16;

template <typename T>
T value_or_fatal(Result<T> result) {
  if (!result) {
    throw FatalError(result.error().message);
  }
  return std::move(result).value();
}

// "cuda:3" to 3; throws on anything else.
int cuda_index(const std::string& device) {
  int index = -1;
  const std::string_view digits = std::string_view(device).substr(std::min(device.size(), 5UL));
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (!device.starts_with("cuda:") || error != std::errc() ||
      end != digits.data() + digits.size()) {
    throw FatalError("device \"" + device + "\" is neither \"cpu\" nor \"cuda:N\"");
  }
  return index;
}

std::unique_ptr<kernels::Backend> make_backend(const EngineOptions& options) {
  if (options.device == "cpu") {
    return kernels::make_cpu_backend(
        {.threads = options.threads, .weight_type = options.weight_type});
  }
  return kernels::make_cuda_backend({.device = cuda_index(options.device)});
}

std::int64_t given_or(const char* name, std::int64_t given, std::int64_t fallback,
                      std::int64_t max) {
  if (given < 0 || given > max) {
    throw FatalError(std::string(name) + " is " + std::to_string(given) + ", not within 1.." +
                     std::to_string(max));
  }
  return given == 0 ? std::min(fallback, max) : given;
}

// The memory of one device as a sum: weights, activations, and what the backend adds.
class MemoryPlan {
 public:
  MemoryPlan(const ModelConfig& config, const kernels::Backend& backend,
             const kernels::BatchLimits& limits) {
    options_ = {.max_batch_tokens = limits.max_tokens,
                .max_sequences = limits.max_sequences,
                .weight_bytes = kernels::size_of(backend.weight_type()),
                .activation_bytes = kernels::size_of(backend.activation_type()),
                .residual_bytes = kernels::size_of(backend.residual_type())};
    items_ = estimate_memory(config, options_);
    for (auto& term : backend.own_memory(limits, encoder_shape(config), kSlots)) {
      items_.push_back({std::move(term.what), term.bytes});
    }
  }

  std::uint64_t bytes() const { return total_bytes(items_); }
  std::string text() const { return format_memory(items_); }
  WorkspaceBytes workspace(const ModelConfig& config) const {
    return workspace_bytes(config, options_);
  }

 private:
  MemoryEstimateOptions options_;
  std::vector<MemoryItem> items_;
};

kernels::BatchLimits pick_limits(const EngineOptions& options, const ModelConfig& config,
                                 std::int64_t batch_tokens_default) {
  kernels::BatchLimits limits;
  const bool cpu = options.device == "cpu";
  limits.max_seqlen = given_or("max-seqlen", options.max_seqlen,
                               cpu ? kCpuSeqlenDefault : config.max_position_embeddings,
                               config.max_position_embeddings);
  const std::int64_t tokens = cpu ? limits.max_seqlen : batch_tokens_default;
  limits.max_tokens = given_or("max-batch-tokens", options.max_batch_tokens,
                               std::max(tokens, limits.max_seqlen), 1 << 24);
  if (limits.max_tokens < limits.max_seqlen) {
    if (options.max_seqlen > 0) {
      throw FatalError("max-batch-tokens is below max-seqlen: the longest text would not fit");
    }
    limits.max_seqlen = limits.max_tokens;
  }
  // Short texts have some eight tokens; more sequences than this do not fill a batch.
  limits.max_sequences = given_or("max-sequences", options.max_sequences,
                                  std::max<std::int64_t>(limits.max_tokens / 8, 1), kSequencesMax);
  return limits;
}

// The limits asked for, or the default ones with the batch halved until it fits.
kernels::BatchLimits fit_limits(const EngineOptions& options, const ModelConfig& config,
                                const kernels::Backend& backend) {
  const std::size_t free_bytes = backend.free_memory_bytes();
  for (std::int64_t tokens = kBatchTokensDefault;; tokens /= 2) {
    const kernels::BatchLimits limits = pick_limits(options, config, tokens);
    const MemoryPlan plan(config, backend, limits);
    if (plan.bytes() <= free_bytes) {
      return limits;
    }
    const bool fixed = options.device == "cpu" || options.max_batch_tokens > 0;
    if (fixed || tokens <= limits.max_seqlen) {
      throw FatalError("the model does not fit: " + std::to_string(free_bytes / 1'000'000) +
                       " MB are free on " + backend.name() + ", needed are\n" + plan.text());
    }
  }
}

class SingleEngine final : public Engine {
 public:
  explicit SingleEngine(const EngineOptions& options)
      : config_(value_or_fatal(read_model_config(options.model_dir))),
        backend_(make_backend(options)),
        limits_(fit_limits(options, config_, *backend_)) {
    const auto folder = value_or_fatal(SafetensorsFolder::open(options.model_dir));
    fill_info(options, folder);
    const MemoryPlan plan(config_, *backend_, limits_);
    log::info("memory on {}:\n{}", backend_->name(), plan.text());
    EncoderWeights weights = load_weights(*backend_, config_, folder);
    encoder_ = std::make_unique<Encoder>(*backend_, config_, std::move(weights),
                                         allocate_workspace(*backend_, plan.workspace(config_)));
    for (int i = 0; i < kSlots; ++i) {
      slots_.push_back(backend_->make_slot(limits_, encoder_shape(config_)));
    }
    if (options.measure_cost) {
      info_.cost = measure_cost(*this);
    }
  }

  const EngineInfo& info() const override { return info_; }
  int slots() const override { return kSlots; }

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
    CHECK(slot >= 0 && slot < kSlots);
    return *slots_[static_cast<std::size_t>(slot)];
  }

  void fill_info(const EngineOptions& options, const SafetensorsFolder& folder) {
    const auto numeric_type = kernels::to_string(backend_->activation_type());
    const auto dir = std::filesystem::weakly_canonical(options.model_dir);
    info_.model_name = dir.filename().string();
    info_.fingerprint = value_or_fatal(model_fingerprint(dir, folder, numeric_type));
    info_.tokenizer_hash = value_or_fatal(tokenizer_hash(dir));
    info_.device = backend_->name();
    info_.hidden_size = config_.hidden_size;
    info_.vocab_size = config_.vocab_size;
    info_.max_seqlen = limits_.max_seqlen;
    info_.max_batch_tokens = limits_.max_tokens;
    info_.max_sequences = limits_.max_sequences;
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
  return std::make_unique<SingleEngine>(options);
}

}  // namespace tessera
