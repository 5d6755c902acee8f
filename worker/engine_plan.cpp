#include "worker/engine_plan.hpp"

#include <algorithm>
#include <charconv>

#include "common/model/fingerprint.hpp"
#include "worker/token_split.hpp"
#include "worker/weights.hpp"

namespace tessera {
namespace {

constexpr std::int64_t kCpuSeqlenDefault = 8192;
constexpr std::int64_t kBatchTokensDefault = 32768;
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

kernels::BatchLimits rank_limits(const kernels::BatchLimits& limits, const RankPlan& plan) {
  if (plan.split != GroupSplit::kTokens) return limits;
  kernels::BatchLimits own = limits;
  own.max_tokens = split_tokens_per_rank_max(limits.max_tokens, plan.ranks);
  own.max_sequences += kernels::kPartsMax;
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
  const int slots = rank.split == GroupSplit::kTensor ? 2 * kEngineSlots : kEngineSlots;
  for (auto& term : backend.own_memory(own, encoder_shape(config, share), slots)) {
    items_.push_back({std::move(term.what), term.bytes});
  }
}

kernels::BatchLimits fit_limits(const EngineOptions& options, const ModelConfig& config,
                                const kernels::Backend& backend, std::size_t free_bytes,
                                const RankPlan& rank) {
  const std::int64_t start =
      rank.split == GroupSplit::kTokens ? kRankTokensDefault * rank.ranks : kBatchTokensDefault;
  for (std::int64_t tokens = start;; tokens /= 2) {
    const kernels::BatchLimits limits = pick_limits(options, config, tokens);
    const MemoryPlan plan(config, backend, limits, rank);
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

EngineInfo describe_engine(const EngineOptions& options, const ModelConfig& config,
                           const SafetensorsFolder& folder, const kernels::Backend& backend,
                           const kernels::BatchLimits& limits) {
  const auto dir = std::filesystem::weakly_canonical(options.model_dir);
  const auto numeric_type = kernels::to_string(backend.activation_type());
  EngineInfo info;
  info.model_name = dir.filename().string();
  info.fingerprint = value_or_fatal(model_fingerprint(dir, folder, numeric_type));
  info.tokenizer_hash = value_or_fatal(tokenizer_hash(dir));
  info.device = backend.name();
  info.hidden_size = config.hidden_size;
  info.vocab_size = config.vocab_size;
  info.max_seqlen = limits.max_seqlen;
  info.max_batch_tokens = limits.max_tokens;
  info.max_sequences = limits.max_sequences;
  return info;
}

}  // namespace tessera
