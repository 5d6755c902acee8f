#include "worker/group/group_engine.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>

#include "common/log.hpp"
#include "worker/engine/cost_probe.hpp"
#include "worker/engine/engine_plan.hpp"
#include "worker/group/rank_engine.hpp"
#include "worker/group/rank_threads.hpp"

namespace tessera::worker {
namespace {

using kernels::PackedBatchView;
using Seconds = std::chrono::duration<double>;

// Half batches below this leave the GPUs idle for longer than the exchange that they hide.
constexpr std::int64_t kHalvedTokensMin = 4096;
constexpr double kHalfMax = 0.62;
constexpr double kLoadingMaxS = 900;

// All that the ranks' threads use. Shared with them, since threads of a failed group live on.
struct Shared {
  EngineOptions options;
  GroupParts parts;
  ModelFolder model;
  ModelConfig config;
  SafetensorsFolder folder;
  RankPlan plan;
  kernels::BatchLimits limits;
  std::vector<std::unique_ptr<kernels::Backend>> backends;  // until the ranks take them
  std::vector<std::size_t> free_bytes;
  std::vector<std::unique_ptr<RankEngine>> ranks;
  std::array<GroupBatch, kEngineSlots> batches;
};

class GroupEngine final : public Engine {
 public:
  GroupEngine(const EngineOptions& options, GroupParts parts)
      : shared_(std::make_shared<Shared>()), group_(start(*shared_, options, std::move(parts))) {
    Shared& s = *shared_;
    run([](Shared& all, int rank) {
      const auto i = static_cast<std::size_t>(rank);
      all.backends[i] = all.parts.make_backend(rank);
      all.free_bytes[i] = all.backends[i]->free_memory_bytes();
    });
    settle();
    FolderHashing hashing(s.options, s.model, s.folder);
    const auto numeric_type = kernels::to_string(s.backends[0]->activation_type());
    info_ = describe_engine(s.model, *s.backends[0], s.limits);
    info_.group_size = group_.size();
    info_.express_tokens = s.parts.express ? info_.express_tokens : 0;
    for (std::size_t i = 1; i < s.backends.size() && !info_.pci_bus_ids.empty(); ++i) {
      info_.pci_bus_ids.push_back(s.backends[i]->pci_bus_id());
    }
    info_.device = std::to_string(group_.size()) + " x " + s.backends[0]->name() + ", " +
                   (s.plan.split == GroupSplit::kTensor ? "weights" : "tokens") + " split over " +
                   std::string(s.parts.communicators->transport());
    if (s.plan.split == GroupSplit::kTensor) {
      info_.device_kind += " x" + std::to_string(group_.size()) + " weights";
    }
    log::info("memory on each of {}:\n{}", info_.device,
              MemoryPlan(s.config, *s.backends[0], s.limits, s.plan).text());
    run([](Shared& all, int rank) {
      const auto i = static_cast<std::size_t>(rank);
      all.ranks[i] = std::make_unique<RankEngine>(
          std::move(all.backends[i]), *all.parts.communicators, all.config, all.folder,
          RankEngine::Options{.plan = all.plan,
                              .rank = rank,
                              .limits = all.limits,
                              .length = pooled_length(all.model)});
    });
    hashing.identify(info_, numeric_type);
    s.folder = {};
    const auto start = RankThreads::Clock::now();
    run([](Shared& all, int rank) { all.ranks[static_cast<std::size_t>(rank)]->prepare(); });
    pipeline_.emplace(
        PassCutter(s.config, piece_seconds(s.options)),
        PassPipeline::Device{
            .launch = [this](const PassPiece& piece) { return launch(piece); },
            .wait = [this](const PassPiece& piece, std::uint64_t) { wait_for(piece); }},
        kEngineSlots, pieces_ahead(s.options));
    log::info("ready for batches of every size after {:.2f} s",
              Seconds(RankThreads::Clock::now() - start).count());
    if (s.options.measure_cost) {
      info_.cost = measure_cost(*this);
    }
  }

  // Each rank's memory goes back on the rank's own thread.
  ~GroupEngine() override {
    try {
      run([](Shared& all, int rank) { all.ranks[static_cast<std::size_t>(rank)].reset(); });
    } catch (const FatalError&) {
      // The group had failed before; its threads keep what they use.
    }
  }

  const EngineInfo& info() const override { return info_; }
  int slots() const override { return kBatchSlots; }

  Result<void> check(const PackedBatchView& batch) const override {
    return check_batch(batch, shared_->limits, shared_->config.vocab_size);
  }

  void enqueue(int slot, const PackedBatchView& batch) override {
    CHECK(check(batch).ok());
    GroupBatch& b = at(slot);
    b.input_ids.assign(batch.input_ids.begin(), batch.input_ids.end());
    b.cu_seqlens.assign(batch.cu_seqlens.begin(), batch.cu_seqlens.end());
    const auto sequences = static_cast<std::size_t>(batch.num_sequences());
    b.vectors.resize(sequences * static_cast<std::size_t>(info_.hidden_size));
    b.finite.assign(sequences, 0);
    const bool express = slot == kExpressSlot;
    divide(b, shared_->parts.halves && !express);
    if (express) {
      CHECK(batch.total_tokens() <= info_.express_tokens);
      pipeline_->add_express(slot);
      return;
    }
    PassCost cost = pass_cost(shared_->options, batch, info_.cost);
    cost.strands = b.second_cu_seqlens.empty() ? 1 : 2;
    cost.whole = !shared_->parts.express || !same_steps(b);
    pipeline_->add(slot, cost);
  }

  bool wait_unless(int slot, const std::function<bool()>& interrupted) override {
    return pipeline_->run_until_done(slot, interrupted);
  }

  std::span<const float> vectors(int slot) const override { return at(slot).vectors; }
  std::span<const std::uint8_t> finite(int slot) const override { return at(slot).finite; }

 private:
  static RankThreads::Options start(Shared& s, const EngineOptions& options, GroupParts parts) {
    s.options = options;
    s.parts = std::move(parts);
    s.model = value_or_fatal(read_model_folder(options.model_dir));
    s.config = s.model.config;
    s.folder = value_or_fatal(open_weights(s.model));
    s.backends.resize(s.parts.names.size());
    s.free_bytes.resize(s.parts.names.size());
    s.ranks.resize(s.parts.names.size());
    kernels::CommunicatorGroup& communicators = *s.parts.communicators;
    return {
        .names = s.parts.names,
        .progress = [&communicators](int rank) { return communicators.progress(rank); },
        .wake = [&communicators] { communicators.abort(); },
        .spin = std::chrono::duration_cast<RankThreads::Clock::duration>(Seconds(s.parts.spin_s))};
  }

  void run(void (*task)(Shared&, int)) {
    const std::uint64_t ticket = group_.post([s = shared_, task](int rank) { task(*s, rank); });
    group_.wait(ticket,
                std::chrono::duration_cast<RankThreads::Clock::duration>(Seconds(kLoadingMaxS)));
  }

  // The split and the limits, from the device that has least memory to give.
  void settle() {
    Shared& s = *shared_;
    const std::size_t free_bytes = std::ranges::min(s.free_bytes);
    const auto fits = [&](const RankPlan& plan) {
      try {
        s.limits = fit_limits(s.options, s.config, *s.backends[0], free_bytes, plan);
        return true;
      } catch (const FatalError&) {
        return false;
      }
    };
    const RankPlan whole{.split = GroupSplit::kTokens, .ranks = group_.size()};
    const SplitChoice choice = choose_split({.asked = s.options.split,
                                             .ranks = group_.size(),
                                             .whole_fits = fits(whole),
                                             .gathers = s.parts.communicators->gathers()});
    log::info("group of {}: {}", group_.size(), choice.reason);
    s.plan = {.split = choice.split, .ranks = group_.size()};
    if (choice.split == GroupSplit::kTensor) {
      const Result<void> divides = check_tensor_split(s.config, group_.size());
      if (!divides) throw FatalError(divides.error().message);
    }
    s.limits = fit_limits(s.options, s.config, *s.backends[0], free_bytes, s.plan);
  }

  void divide(GroupBatch& batch, bool halves) const {
    const Shared& s = *shared_;
    const double pair_cost = attention_pair_cost(s.config);
    if (s.plan.split == GroupSplit::kTokens) {
      batch.tokens = split_tokens(batch.view(), {.size = group_.size(), .pair_cost = pair_cost});
      return;
    }
    batch.second_cu_seqlens.clear();
    const auto first =
        static_cast<std::size_t>(halves ? halve_batch(batch.cu_seqlens, pair_cost) : 0);
    for (std::size_t i = first; first > 0 && i < batch.cu_seqlens.size(); ++i) {
      batch.second_cu_seqlens.push_back(batch.cu_seqlens[i] - batch.cu_seqlens[first]);
    }
  }

  // Whether all ranks take the batch in the same steps: one that replays its part takes it as one,
  // and would then wait for others that wait for it.
  bool same_steps(const GroupBatch& batch) const {
    const std::int64_t recorded = shared_->ranks.front()->recorded_tokens_max();
    return !batch.tokens.gathers ||
           std::ranges::none_of(batch.tokens.ranks, [&](const TokenShare& share) {
             return std::ssize(share.input_ids) > 0 && std::ssize(share.input_ids) <= recorded;
           });
  }

  std::uint64_t launch(const PassPiece& piece) {
    return group_.post([s = shared_, piece](int rank) {
      s->ranks[static_cast<std::size_t>(rank)]->launch(
          piece, s->batches[static_cast<std::size_t>(piece.slot)]);
    });
  }

  void wait_for(const PassPiece& piece) {
    const std::uint64_t ticket = group_.post([s = shared_, piece](int rank) {
      RankEngine& engine = *s->ranks[static_cast<std::size_t>(rank)];
      engine.wait_oldest();
      if (piece.ends) {
        engine.collect(piece.slot, s->batches[static_cast<std::size_t>(piece.slot)]);
      }
    });
    group_.wait(ticket, standstill_max(at(piece.slot)));
  }

  RankThreads::Clock::duration standstill_max(const GroupBatch& batch) const {
    const PassCost cost = pass_cost(shared_->options, batch.view(), info_.cost);
    const double expected_s = info_.cost.seconds(cost.tokens, cost.sum_of_squares);
    // Two batches may be under way. Before the cost is known nothing can be said about a hang.
    const double limit_s = std::max(shared_->parts.standstill_s, 4 * kEngineSlots * expected_s);
    return std::chrono::duration_cast<RankThreads::Clock::duration>(Seconds(limit_s));
  }

  GroupBatch& at(int slot) const {
    CHECK(slot >= 0 && slot < kEngineSlots);
    return shared_->batches[static_cast<std::size_t>(slot)];
  }

  std::shared_ptr<Shared> shared_;
  RankThreads group_;
  EngineInfo info_;
  std::optional<PassPipeline> pipeline_;
};

}  // namespace

SplitChoice choose_split(const SplitQuestion& q) {
  if (q.asked == GroupSplit::kTensor) return {*q.asked, "weights are split, as asked"};
  if (!q.gathers) {
    if (q.asked) throw FatalError("these devices cannot split tokens: nothing gathers their keys");
    return {GroupSplit::kTensor,
            "the devices do not reach each other's memory, so the weights are split"};
  }
  if (q.asked == GroupSplit::kTokens) return {*q.asked, "tokens are split, as asked"};
  if (q.whole_fits) {
    return {GroupSplit::kTokens,
            "all weights fit on each device, so batches are split along their tokens: short texts "
            "run whole on one device each, long ones are cut and only keys and values travel"};
  }
  return {GroupSplit::kTensor, "the weights do not fit on one device, so each of " +
                                   std::to_string(q.ranks) + " holds its share of every matrix"};
}

std::int64_t halve_batch(std::span<const std::int32_t> cu_seqlens, double pair_cost) {
  if (cu_seqlens.back() < kHalvedTokensMin) return 0;
  const auto cost = [&](std::size_t i) {
    const double n = cu_seqlens[i + 1] - cu_seqlens[i];
    return n + pair_cost * 0.5 * n * n;
  };
  double total = 0;
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) total += cost(i);
  double before = 0;
  std::size_t best = 0;
  double best_larger = total;
  for (std::size_t i = 0; i + 2 < cu_seqlens.size(); ++i) {
    before += cost(i);
    const double larger = std::max(before, total - before);
    if (larger < best_larger) {
      best_larger = larger;
      best = i + 1;
    }
  }
  return best_larger <= kHalfMax * total ? static_cast<std::int64_t>(best) : 0;
}

std::unique_ptr<Engine> make_group_engine(const EngineOptions& options, GroupParts parts) {
  return std::make_unique<GroupEngine>(options, std::move(parts));
}

std::unique_ptr<Engine> make_cpu_group_engine(const EngineOptions& options, int ranks) {
  // The CPU backend takes whole sequences only; its threads share one by themselves.
  if (options.split == GroupSplit::kTokens) {
    throw FatalError("a group of CPU teams splits weights, not tokens");
  }
  EngineOptions tensor = options;
  tensor.split = GroupSplit::kTensor;
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const int threads = std::max(1, (options.threads == 0 ? cores : options.threads) / ranks);
  const kernels::CpuOptions cpu{.threads = threads, .weight_type = options.weight_type};
  GroupParts parts;
  parts.names.assign(static_cast<std::size_t>(ranks), "cpu");
  parts.communicators = kernels::make_thread_communicators(ranks);
  parts.standstill_s = 60;
  parts.make_backend = [cpu](int) { return kernels::make_cpu_backend(cpu); };
  return make_group_engine(tensor, std::move(parts));
}

std::unique_ptr<Engine> make_cuda_group_engine(const EngineOptions& options,
                                               const std::vector<int>& devices) {
  GroupParts parts;
  for (const int device : devices) parts.names.push_back("cuda:" + std::to_string(device));
  parts.communicators = kernels::make_cuda_communicators(devices, options.transport);
  parts.halves = true;
  // Until it has run on several GPUs: an order that differs between them would be a hang.
  parts.express = false;
  parts.spin_s = 200e-6;
  parts.make_backend = [devices](int rank) {
    return kernels::make_cuda_backend({.device = devices[static_cast<std::size_t>(rank)]});
  };
  return make_group_engine(options, std::move(parts));
}

}  // namespace tessera::worker
