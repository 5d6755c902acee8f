#include "worker/group/rank_engine.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "common/check.hpp"
#include "worker/engine/recorded_batch.hpp"

namespace tessera::worker {

using kernels::BatchSlot;
using kernels::PackedBatchView;

namespace {

// Multiples of 8 up to 64, then four to an octave, up to `most` and with it.
std::vector<std::int64_t> kernel_sizes(std::int64_t most) {
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = 8, step = 8; size < most; size += step) {
    if (size >= 8 * step) step *= 2;
    sizes.push_back(size);
  }
  sizes.push_back(most);
  return sizes;
}

}  // namespace

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

RankEngine::RankEngine(std::unique_ptr<kernels::Backend> backend, kernels::CommunicatorGroup& group,
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
      EncoderPlace{.split = plan.split,
                   .share = share,
                   .communicator = communicator_.get(),
                   .length = options_.length});
  for (int slot = 0; slot < kEngineSlots; ++slot) {
    auto& halves = slots_.at(static_cast<std::size_t>(slot));
    halves[0] = backend_->make_slot(limits, encoder_shape(config, share));
    if (plan.split == GroupSplit::kTensor && slot != kExpressSlot) {
      halves[1] = backend_->make_slot(limits, encoder_shape(config, share));
    }
  }
  if (communicator_->needs_rehearsal()) rehearse();
}

// The smallest and the largest of each kind run once, all ranks together, so that whatever the
// first use of a collective brings is not recorded.
void RankEngine::prepare() {
  const std::vector<kernels::RecordedSize> sizes = backend_->recorded_sizes();
  for (const kernels::RecordedSize& size : sizes) {
    recorded_tokens_max_ = std::max(recorded_tokens_max_, size.tokens);
  }
  if (!sizes.empty()) {
    std::map<kernels::BatchKind, std::array<kernels::RecordedSize, 2>> ends;
    for (const kernels::RecordedSize& size : sizes) {
      ends.try_emplace(size.kind, std::array{size, size}).first->second[1] = size;
    }
    for (const auto& [kind, both] : ends) {
      for (const kernels::RecordedSize& size : both) pass(0, size);
    }
    record_all(*backend_, sizes, [this](int slot, const auto& size) { pass(slot, size); });
  }
  backend_->seal();
}

void RankEngine::pass(int slot, const kernels::RecordedSize& size) {
  const RecordedBatch batch(size);
  BatchSlot& whole = *slots_[static_cast<std::size_t>(slot)][0];
  if (options_.plan.split == GroupSplit::kTensor) {
    encoder_->start(whole, batch.view(), region_of(slot))->run_all();
  } else {
    if (size.kind != kernels::BatchKind::kWhole) {
      // All ranks have the same part here, and a row of keys and values has one writer.
      const std::span<const std::int32_t> rows(batch.kv_rows());
      communicator_->stage_rows(slot, rows.first(options_.rank == 0 ? rows.size() : 0));
    }
    encoder_->start_part(whole, batch.view(), slot, region_of(slot))->run_all();
  }
  backend_->wait(whole);
}

// Every size for which the device may have a kernel of its own, which depends on the rows of a
// product: tokens, and in the last layer sequences. The choice of kernels may come from a file, so
// none need have run before.
void RankEngine::rehearse() {
  communicator_->rehearse(true);
  const kernels::BatchLimits limits = rank_limits(options_.limits, options_.plan);
  for (const std::int64_t tokens : kernel_sizes(limits.max_tokens)) rehearse(tokens, 2);
  const std::int64_t sequences_max = std::min(limits.max_sequences, limits.max_tokens / 2);
  for (const std::int64_t sequences : kernel_sizes(sequences_max)) {
    rehearse(2 * sequences, sequences);
  }
  communicator_->rehearse(false);
}

// Texts of two tokens, and the last with what is left, or as much of it as a text may have.
void RankEngine::rehearse(std::int64_t tokens, std::int64_t sequences) {
  const kernels::BatchLimits limits = rank_limits(options_.limits, options_.plan);
  std::vector<std::int32_t> cu_seqlens = {0};
  for (std::int64_t i = 1; i <= limits.max_sequences && cu_seqlens.back() < tokens; ++i) {
    const std::int64_t most = i < sequences ? 2 : limits.max_seqlen;
    const std::int64_t length = std::min(most, tokens - cu_seqlens.back());
    cu_seqlens.push_back(cu_seqlens.back() + static_cast<std::int32_t>(length));
  }
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(cu_seqlens.back()), 1);
  BatchSlot& slot = *slots_[0][0];
  encoder_->rehearse(slot, {.input_ids = ids, .cu_seqlens = cu_seqlens});
  backend_->wait(slot);
}

void RankEngine::launch(const PassPiece& piece, const GroupBatch& batch) {
  const auto index = static_cast<std::size_t>(piece.slot);
  BatchSlot& slot = *slots_[index][0];
  auto& pass = passes_[index];
  if (piece.first_step == 0) {
    pass = options_.plan.split == GroupSplit::kTensor ? start_tensor(piece.slot, batch)
                                                      : start_tokens(piece.slot, batch);
  } else if (pass != nullptr && !pass->done()) {
    backend_->resume(slot);
  }
  if (pass != nullptr) pass->run(piece.steps);
  if (pass == nullptr || pass->done()) {
    cuts_.emplace_back();
    return;
  }
  if (!batch.second_cu_seqlens.empty()) communicator_->settle();
  cuts_.emplace_back(backend_->cut(slot));
}

void RankEngine::wait_oldest() {
  CHECK(!cuts_.empty());
  const std::optional<std::uint64_t> cut = cuts_.front();
  cuts_.pop_front();
  if (cut) backend_->wait_cut(*cut);
}

std::unique_ptr<Encoder::Pass> RankEngine::start_tensor(int slot, const GroupBatch& batch) {
  auto& halves = slots_[static_cast<std::size_t>(slot)];
  if (batch.second_cu_seqlens.empty()) {
    return encoder_->start(*halves[0], batch.view(), region_of(slot));
  }
  return encoder_->start_halves({halves[0].get(), batch.first_half()},
                                {halves[1].get(), batch.second_half()});
}

std::unique_ptr<Encoder::Pass> RankEngine::start_tokens(int slot, const GroupBatch& batch) {
  const TokenShare& share = batch.tokens.ranks[static_cast<std::size_t>(options_.rank)];
  const auto index = static_cast<std::size_t>(slot);
  if (batch.tokens.gathers) communicator_->stage_rows(slot, share.kv_rows);
  busy_[index] = !share.input_ids.empty();
  if (!busy_[index] && !batch.tokens.gathers) return nullptr;
  return encoder_->start_part(*slots_[index][0], share.view(), slot, region_of(slot));
}

void RankEngine::collect(int slot, GroupBatch& batch) {
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

void RankEngine::copy_out(BatchSlot& slot, std::int64_t from, std::int64_t to,
                          GroupBatch& batch) const {
  const auto row = backend_->vectors(slot).subspan(static_cast<std::size_t>(from * hidden_size_),
                                                   static_cast<std::size_t>(hidden_size_));
  std::ranges::copy(row, batch.vectors.begin() + to * hidden_size_);
  batch.finite[static_cast<std::size_t>(to)] =
      backend_->finite(slot)[static_cast<std::size_t>(from)];
}

}  // namespace tessera::worker
