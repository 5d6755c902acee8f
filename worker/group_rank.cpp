#include "worker/group_rank.hpp"

#include <algorithm>
#include <utility>

#include "common/check.hpp"

namespace tessera {

using kernels::BatchSlot;
using kernels::PackedBatchView;

PackedBatchView GroupBatch::first_half() const {
  if (second_cu_seqlens.empty()) return view();
  const std::size_t sequences = cu_seqlens.size() - second_cu_seqlens.size();
  const auto tokens = static_cast<std::size_t>(cu_seqlens[sequences]);
  return {.input_ids = std::span(input_ids).first(tokens),
          .cu_seqlens = std::span(cu_seqlens).first(sequences + 1)};
}

PackedBatchView GroupBatch::second_half() const {
  const auto tokens = static_cast<std::size_t>(second_cu_seqlens.back());
  return {.input_ids = std::span(input_ids).last(tokens), .cu_seqlens = second_cu_seqlens};
}

GroupRank::GroupRank(std::unique_ptr<kernels::Backend> backend, kernels::CommunicatorGroup& group,
                     const ModelConfig& config, const SafetensorsFolder& folder,
                     const Options& options)
    : options_(options), hidden_size_(config.hidden_size), backend_(std::move(backend)) {
  const RankPlan& plan = options_.plan;
  const RankShare share = plan.share(options_.rank);
  const kernels::BatchLimits limits = rank_limits(options_.limits, plan);
  communicator_ = group.join(options_.rank, *backend_, limits, kEngineSlots);
  EncoderWeights weights = load_weights(*backend_, config, folder, share);
  const MemoryPlan memory(config, *backend_, options_.limits, plan);
  encoder_ = std::make_unique<Encoder>(
      *backend_, config, std::move(weights),
      allocate_workspace(*backend_, memory.workspace(config), plan.split, communicator_.get()),
      EncoderPlace{.split = plan.split, .share = share, .communicator = communicator_.get()});
  for (auto& halves : slots_) {
    halves[0] = backend_->make_slot(limits, encoder_shape(config, share));
    if (plan.split == GroupSplit::kTensor) {
      halves[1] = backend_->make_slot(limits, encoder_shape(config, share));
    }
  }
  if (communicator_->needs_rehearsal()) rehearse();
}

// Short, long and many tokens, so that every kernel has run once on this device.
void GroupRank::rehearse() {
  communicator_->rehearse(true);
  const kernels::BatchLimits limits = rank_limits(options_.limits, options_.plan);
  for (const std::int64_t longest : {std::int64_t{16}, std::int64_t{300}, limits.max_tokens}) {
    const std::int64_t length = std::min({longest, limits.max_seqlen, limits.max_tokens / 2});
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(length + 2), 1);
    const std::vector<std::int32_t> cu_seqlens = {0, 2, static_cast<std::int32_t>(length + 2)};
    const PackedBatchView batch{.input_ids = ids, .cu_seqlens = cu_seqlens};
    BatchSlot& slot = *slots_[0][0];
    if (options_.plan.split == GroupSplit::kTensor) {
      encoder_->forward(slot, batch);
    } else {
      encoder_->forward_part(slot, batch, 0);
    }
    backend_->wait(slot);
  }
  communicator_->rehearse(false);
}

void GroupRank::enqueue(int slot, const GroupBatch& batch) {
  if (options_.plan.split == GroupSplit::kTensor) {
    enqueue_tensor(slot, batch);
  } else {
    enqueue_tokens(slot, batch);
  }
}

void GroupRank::enqueue_tensor(int slot, const GroupBatch& batch) {
  auto& halves = slots_[static_cast<std::size_t>(slot)];
  if (batch.second_cu_seqlens.empty()) {
    encoder_->forward(*halves[0], batch.view());
  } else {
    encoder_->forward_halves({halves[0].get(), batch.first_half()},
                             {halves[1].get(), batch.second_half()});
  }
}

void GroupRank::enqueue_tokens(int slot, const GroupBatch& batch) {
  const TokenShare& share = batch.tokens.ranks[static_cast<std::size_t>(options_.rank)];
  const auto index = static_cast<std::size_t>(slot);
  if (batch.tokens.gathers) communicator_->stage_rows(slot, share.kv_rows);
  busy_[index] = !share.input_ids.empty();
  if (busy_[index] || batch.tokens.gathers) {
    encoder_->forward_part(*slots_[index][0], share.view(), slot);
  }
}

void GroupRank::collect(int slot, GroupBatch& batch) {
  const auto index = static_cast<std::size_t>(slot);
  auto& halves = slots_[index];
  if (options_.plan.split == GroupSplit::kTensor) {
    // Every rank waits, so that a failure of any is seen; all hold the same vectors.
    const std::int64_t first = batch.first_half().num_sequences();
    backend_->wait(*halves[0]);
    if (!batch.second_cu_seqlens.empty()) backend_->wait(*halves[1]);
    if (options_.rank != 0) return;
    for (std::int64_t i = 0; i < batch.view().num_sequences(); ++i) {
      copy_out(*halves[i < first ? 0 : 1], i < first ? i : i - first, i, batch);
    }
    return;
  }
  if (!busy_[index]) return;
  backend_->wait(*halves[0]);
  std::int64_t from = 0;
  for (const std::int32_t to :
       batch.tokens.ranks[static_cast<std::size_t>(options_.rank)].sequences) {
    copy_out(*halves[0], from++, to, batch);
  }
}

void GroupRank::copy_out(BatchSlot& slot, std::int64_t from, std::int64_t to,
                         GroupBatch& batch) const {
  const auto row = backend_->vectors(slot).subspan(static_cast<std::size_t>(from * hidden_size_),
                                                   static_cast<std::size_t>(hidden_size_));
  std::ranges::copy(row, batch.vectors.begin() + to * hidden_size_);
  batch.finite[static_cast<std::size_t>(to)] =
      backend_->finite(slot)[static_cast<std::size_t>(from)];
}

}  // namespace tessera
