#include "worker/engine/engine_plan.hpp"

#include <algorithm>
#include <charconv>

#include "common/log.hpp"
#include "worker/encoder/weights.hpp"
#include "worker/split/token_split.hpp"

namespace tessera::worker {
namespace {

constexpr std::int64_t kCpuSeqlenDefault = 8192;
// More tokens in a batch make no product faster, and a query waits for the batch in front of it.
constexpr std::int64_t kBatchTokensDefault = 32768;
// Batches are made smaller in such steps, and no smaller than one of them.
constexpr std::int64_t kTokensStep = 1024;
// A rank of a group needs no more for its products to run at full speed.
constexpr std::int64_t kRankTokensDefault = 16384;
constexpr std::int64_t kSequencesMax = 1 << 16;

std::int64_t given_or(const char* name, std::int64_t given, std::int64_t fallback,
                      std::int64_t max) {
  if (given < 0 || given > max) {
    throw FatalError(std::string(name) + " is " + std::to_string(given) + ", not within 1.." +
                     std::to_string(max));
  }
  return given == 0 ? std::min(fallback, max) : given;
}

bool on_cpu(const EngineOptions& options) {
  return options.device == "cpu" && options.devices.empty();
}

// The batch before it has to fit: the longest text must have room in it.
std::int64_t wanted_tokens(const EngineOptions& options, const ModelConfig& config,
                           const RankPlan& rank) {
  const std::int64_t longest = options.max_seqlen > 0 ? options.max_seqlen
                               : on_cpu(options)      ? kCpuSeqlenDefault
                                                      : config.max_position_embeddings;
  const std::int64_t full = on_cpu(options)                     ? longest
                            : rank.split == GroupSplit::kTokens ? kRankTokensDefault * rank.ranks
                                                                : kBatchTokensDefault;
  return std::max(full, std::min(longest, config.max_position_embeddings));
}

// Those asked for, and for the rest what a batch of `batch_tokens` allows.
kernels::BatchLimits pick_limits(const EngineOptions& options, const ModelConfig& config,
                                 std::int64_t batch_tokens) {
  kernels::BatchLimits limits;
  limits.max_seqlen = given_or("max-seqlen", options.max_seqlen,
                               on_cpu(options) ? kCpuSeqlenDefault : config.max_position_embeddings,
                               config.max_position_embeddings);
  limits.max_tokens = given_or("max-batch-tokens", options.max_batch_tokens, batch_tokens, 1 << 24);
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

void log_work(const ModelHash::Work& work) {
  for (const std::string& name : work.wrong) {
    log::warn("{} has other bytes than were remembered of it, though its times are the same", name);
  }
  if (work.bytes_read == 0) {
    log::info("hashes of the weights are remembered, {:.3f} s", work.seconds);
    return;
  }
  log::info("{:.3f} GB of weights hashed in {:.2f} s, {}",
            static_cast<double>(work.bytes_read) / 1e9, work.seconds,
            work.remembered_in.empty() ? "not remembered"
                                       : "remembered in " + work.remembered_in.string());
}

std::string megabytes(std::uint64_t bytes) { return std::to_string(bytes / 1'000'000) + " MB"; }

}  // namespace

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

double piece_seconds(const EngineOptions& options) {
  constexpr double kGpuPieceS = 0.5e-3;
  constexpr double kCpuPieceS = 2e-3;
  if (options.piece_s > 0) return options.piece_s;
  return on_cpu(options) ? kCpuPieceS : kGpuPieceS;
}

std::size_t pieces_ahead(const EngineOptions& options) { return on_cpu(options) ? 1 : 2; }

PassCost pass_cost(const EngineOptions& options, const kernels::PackedBatchView& batch,
                   const CostModel& alone) {
  PassCost cost{.tokens = static_cast<double>(batch.total_tokens())};
  for (std::size_t i = 0; i + 1 < batch.cu_seqlens.size(); ++i) {
    const double length = batch.cu_seqlens[i + 1] - batch.cu_seqlens[i];
    cost.sum_of_squares += length * length;
  }
  const bool cut_everywhere = options.piece_s > 0 && !options.measure_cost;
  cost.seconds = cut_everywhere ? 1e9 : alone.seconds(cost.tokens, cost.sum_of_squares);
  return cost;
}

kernels::BatchLimits rank_limits(const kernels::BatchLimits& limits, const RankPlan& plan) {
  if (plan.split != GroupSplit::kTokens) return limits;
  kernels::BatchLimits own = limits;
  own.max_tokens = split_tokens_per_rank_max(limits.max_tokens, plan.ranks);
  own.max_sequences += kernels::kPartsMax;
  own.parts = true;
  return own;
}

MemoryPlan::MemoryPlan(const ModelConfig& config, const kernels::Backend& backend,
                       const kernels::BatchLimits& limits, const RankPlan& rank) {
  const kernels::BatchLimits own = rank_limits(limits, rank);
  const RankShare share = rank.share(0);
  options_ = {.max_batch_tokens = own.max_tokens,
              .max_sequences = own.max_sequences,
              .ranks = share.size,
              .gathered_tokens = rank.split == GroupSplit::kTokens ? limits.max_tokens : 0,
              .weight_bytes = kernels::size_of(backend.weight_type()),
              .activation_bytes = kernels::size_of(backend.activation_type()),
              .residual_bytes = kernels::size_of(backend.residual_type())};
  items_ = estimate_memory(config, options_);
  // Under kTensor a slot stages the two halves of a batch apart.
  const int slots = rank.split == GroupSplit::kTensor ? kBatchSlots + kEngineSlots : kEngineSlots;
  for (auto& term : backend.own_memory(own, encoder_shape(config, share), slots)) {
    items_.push_back({std::move(term.what), term.bytes, term.page_locked});
  }
}

kernels::BatchLimits fit_limits(const EngineOptions& options, const ModelConfig& config,
                                const kernels::Backend& backend, std::size_t free_bytes,
                                const RankPlan& rank) {
  if (!(options.mem_fraction > 0 && options.mem_fraction <= 1)) {
    throw FatalError("mem-fraction is not above 0 and at most 1");
  }
  const auto budget =
      static_cast<std::uint64_t>(options.mem_fraction * static_cast<double>(free_bytes));
  const bool fixed = on_cpu(options) || options.max_batch_tokens > 0;
  const std::int64_t least = std::max(kTokensStep, options.max_seqlen);
  for (std::int64_t tokens = wanted_tokens(options, config, rank);;
       tokens = std::max(tokens - kTokensStep, least)) {
    const kernels::BatchLimits limits = pick_limits(options, config, tokens);
    const MemoryPlan plan(config, backend, limits, rank);
    if (plan.device_bytes() <= budget) {
      return limits;
    }
    if (fixed || tokens <= least) {
      throw FatalError("the model does not fit with batches of " +
                       std::to_string(limits.max_tokens) + " tokens: " + megabytes(free_bytes) +
                       " are free on " + backend.name() + ", of which this worker may take " +
                       megabytes(budget) + "; needed are\n" + plan.text());
    }
  }
}

EngineInfo describe_engine(const ModelFolder& model, const kernels::Backend& backend,
                           const kernels::BatchLimits& limits) {
  EngineInfo info;
  info.model_name = model.name;
  info.device = backend.name();
  info.device_kind = backend.kind();
  info.number_format = to_string(backend.weight_type());
  if (std::string bus_id = backend.pci_bus_id(); !bus_id.empty()) {
    info.pci_bus_ids.push_back(std::move(bus_id));
  }
  info.hidden_size = model.config.hidden_size;
  info.vocab_size = model.config.vocab_size;
  info.max_seqlen = limits.max_seqlen;
  info.max_batch_tokens = limits.max_tokens;
  info.max_sequences = limits.max_sequences;
  info.express_tokens = std::min(kExpressTokensMax, limits.max_tokens);
  return info;
}

kernels::Backend::Length pooled_length(const ModelFolder& model) {
  return model.needs_raw_pooling() ? kernels::Backend::Length::kOwn
                                   : kernels::Backend::Length::kUnit;
}

FolderHashing::FolderHashing(const EngineOptions& options, const ModelFolder& folder,
                             const SafetensorsFolder& weights)
    : weights_(weights) {
  const FingerprintOptions how{.threads = on_cpu(options) ? options.threads : 0,
                               .rehash = options.rehash,
                               .stop = stop_.get_token()};
  hash_ = std::async(std::launch::async,
                     [how, &folder, &weights] { return ModelHash::of(folder, weights, how); });
}

void FolderHashing::identify(EngineInfo& info, std::string_view numeric_type) {
  const ModelHash hash = value_or_fatal(hash_.get());
  if (auto unchanged = weights_.check_unchanged(); !unchanged) {
    throw FatalError(unchanged.error().message);
  }
  info.fingerprint = hash.fingerprint(numeric_type);
  info.former_fingerprint = hash.former_fingerprint(numeric_type);
  info.tokenizer_hash = hash.tokenizer();
  log_work(hash.work());
}

}  // namespace tessera::worker
