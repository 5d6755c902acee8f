#include "worker/encoder/encoder.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "common/check.hpp"

namespace tessera::worker {

using kernels::Backend;
using kernels::BatchSlot;
using kernels::Buffer;
using kernels::Communicator;
using kernels::PackedBatchView;

namespace {

// Rows of a buffer from some row on; the buffer outlives it.
class RowsView final : public Buffer {
 public:
  RowsView(Buffer& whole, std::int64_t first_row, std::int64_t row_elements, std::size_t element)
      : whole_(whole), offset_(static_cast<std::size_t>(first_row * row_elements) * element) {}
  std::size_t bytes() const override { return whole_.bytes() - offset_; }
  void* data() override { return static_cast<std::byte*>(whole_.data()) + offset_; }

 private:
  Buffer& whole_;
  std::size_t offset_;
};

std::int64_t whole_rows(std::int64_t rows) {
  return (rows + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
}

}  // namespace

// One batch on its way through the layers, and its rows of the workspace.
struct Encoder::Lane {
  struct Place {
    int index = Communicator::kNoLane;
    int staged_slot = 0;
    std::int64_t first_row = 0;       // of buffers of tokens
    std::int64_t first_last_row = 0;  // of buffers of last tokens
  };

  Lane(const Encoder& e, const Input& input, const Place& place_of_lane)
      : slot(*input.slot),
        batch(input.batch),
        place(place_of_lane),
        x(*e.workspace_.x, place.first_row, e.config_.hidden_size, e.residual_bytes()),
        qkv(*e.workspace_.qkv, place.first_row, e.shape_.attention.qkv_width(), e.element_bytes()),
        attention(*e.workspace_.attention, place.first_row, e.shape_.attention.q_width(),
                  e.element_bytes()),
        mlp(*e.workspace_.mlp, place.first_row, e.shape_.intermediate_size, e.element_bytes()),
        x_last(*e.workspace_.x_last, place.first_last_row, e.config_.hidden_size,
               e.residual_bytes()),
        q_last(*e.workspace_.q_last, place.first_last_row, e.shape_.attention.q_width(),
               e.element_bytes()),
        norm{.eps = e.eps_} {
    if (e.workspace_.mean_squares != nullptr) {
      squares.emplace(*e.workspace_.mean_squares, place.first_row, 1, sizeof(float));
    }
  }

  std::int64_t tokens() const { return batch.total_tokens(); }
  std::int64_t vectors() const { return slot.num_sequences(); }  // after begin
  bool is_part() const { return !batch.segments.empty(); }

  BatchSlot& slot;
  PackedBatchView batch;
  Place place;
  RowsView x, qkv, attention, mlp, x_last, q_last;
  std::optional<RowsView> squares;  // where the communicator measures rows
  Backend::RowNorm norm;            // of x
};

Encoder::Encoder(Backend& backend, const ModelConfig& config, EncoderWeights weights,
                 Workspace workspace, const EncoderPlace& place)
    : backend_(backend),
      config_(config),
      place_(place),
      shape_(encoder_shape(config, place.share)),
      eps_(static_cast<float>(config.rms_norm_eps)),
      weights_(std::move(weights)),
      workspace_(std::move(workspace)) {
  CHECK(weights_.layers.size() == static_cast<std::size_t>(config.num_hidden_layers));
  CHECK((place.split == GroupSplit::kNone) == (place.communicator == nullptr));
  for (std::size_t i = 0; i + 1 < weights_.layers.size(); ++i) {
    const LayerWeights& w = weights_.layers[i];
    layer_operands_.push_back({.qkv = w.qkv.get(),
                               .o = w.o.get(),
                               .gate_up = w.gate_up.get(),
                               .down = w.down.get(),
                               .q_norm = w.q_norm.get(),
                               .k_norm = w.k_norm.get()});
  }
}

void Encoder::forward(BatchSlot& slot, const PackedBatchView& batch) {
  std::array<Lane, 1> lanes = {Lane(*this, {&slot, batch}, {})};
  pass(lanes);
}

void Encoder::forward_halves(const Input& first, const Input& second) {
  CHECK(place_.split == GroupSplit::kTensor);
  std::array<Lane, 2> lanes = {Lane(*this, first, {.index = 0}),
                               Lane(*this, second,
                                    {.index = 1,
                                     .first_row = whole_rows(first.batch.total_tokens()),
                                     .first_last_row = whole_rows(first.batch.num_sequences())})};
  pass(lanes);
}

bool Encoder::forward_part(BatchSlot& slot, const PackedBatchView& part, int staged_slot) {
  CHECK(place_.split == GroupSplit::kTokens);
  std::array<Lane, 1> lanes = {Lane(*this, {&slot, part}, {.staged_slot = staged_slot})};
  if (part.total_tokens() > 0) {
    pass(lanes);
    return true;
  }
  // The other ranks' gathers still want this one.
  for (std::size_t i = 0; i < weights_.layers.size() + weights_.layers.size() % 2; ++i) {
    gather(lanes[0], shape_.attention.qkv_width(), 0);
  }
  return false;
}

void Encoder::rehearse(BatchSlot& slot, const PackedBatchView& batch) {
  std::array<Lane, 1> lanes = {Lane(*this, {&slot, batch}, {})};
  pass(lanes, Depth::kFirstAndLast);
}

// Half a layer at a time, one lane after the other.
void Encoder::pass(Lanes lanes, Depth depth) {
  for (Lane& lane : lanes) start(lane);
  const std::size_t last = weights_.layers.size() - 1;
  const std::size_t end = depth == Depth::kAll ? last : std::min<std::size_t>(last, 1);
  const bool done = lanes.size() == 1 && run_at_once(lanes[0]);
  for (std::size_t i = done ? end : 0; i < end; ++i) {
    const LayerWeights& weights = weights_.layers[i];
    for (Lane& lane : lanes) attend(lane, weights);
    for (Lane& lane : lanes) feed_forward(lane, weights);
  }
  for (Lane& lane : lanes) attend_last(lane, weights_.layers[last]);
  for (Lane& lane : lanes) finish(lane, weights_.layers[last]);
}

void Encoder::start(Lane& lane) {
  backend_.begin(lane.slot, lane.batch);
  backend_.embed(lane.x, *weights_.embed_tokens, lane.slot, config_.hidden_size);
}

// All layers but the last, where the backend has a way through them.
bool Encoder::run_at_once(Lane& lane) {
  if (place_.split == GroupSplit::kTensor || lane.is_part() || layer_operands_.empty()) {
    return false;
  }
  return backend_.run_layers({.layers = layer_operands_,
                              .x = &lane.x,
                              .qkv = &lane.qkv,
                              .attention = &lane.attention,
                              .mlp = &lane.mlp,
                              .shape = shape_.attention,
                              .eps = eps_,
                              .rope_theta = config_.rope_theta},
                             lane.slot);
}

void Encoder::attend(Lane& lane, const LayerWeights& weights) {
  const kernels::AttentionShape& heads = shape_.attention;
  join(lane);
  backend_.qkv_projection(lane.qkv, lane.x, *weights.qkv, lane.slot, heads,
                          qk_options(weights, lane.norm));
  Buffer* gathered = lane.is_part() ? &gather(lane, heads.qkv_width(), heads.q_width()) : nullptr;
  backend_.attention(lane.attention, lane.qkv, gathered, lane.slot, heads);
  advance_other(lane);
  add(lane, lane.attention, *weights.o, Rows::kTokens);
}

void Encoder::feed_forward(Lane& lane, const LayerWeights& weights) {
  join(lane);
  backend_.swiglu_projection(lane.mlp, lane.x, *weights.gate_up, lane.tokens(), lane.norm);
  advance_other(lane);
  add(lane, lane.mlp, *weights.down, Rows::kTokens);
}

void Encoder::attend_last(Lane& lane, const LayerWeights& weights) {
  const kernels::AttentionShape& heads = shape_.attention;
  join(lane);
  backend_.kv_projection(lane.qkv, lane.x, *weights.qkv, lane.slot, heads,
                         qk_options(weights, lane.norm));
  Buffer* kv = lane.is_part() ? &gather(lane, 2 * heads.kv_width(), 0) : &lane.qkv;
  // So that every pass begins with the same buffer, as a recorded one must.
  if (lane.is_part() && weights_.layers.size() % 2 == 1) gather(lane, 2 * heads.kv_width(), 0);
  if (lane.vectors() == 0) return;
  backend_.gather_last(lane.x_last, lane.x, lane.slot, config_.hidden_size);
  backend_.last_q_projection(lane.q_last, lane.x_last, *weights.qkv, lane.slot, heads,
                             qk_options(weights, {.eps = eps_}));
  backend_.last_attention(lane.attention, lane.q_last, *kv, lane.slot, heads);
  add(lane, lane.attention, *weights.o, Rows::kLast);
}

void Encoder::finish(Lane& lane, const LayerWeights& weights) {
  if (lane.vectors() > 0) {
    join(lane);
    backend_.swiglu_projection(lane.mlp, lane.x_last, *weights.gate_up, lane.vectors(),
                               {.eps = eps_});
    add(lane, lane.mlp, *weights.down, Rows::kLast);
    join(lane);
    backend_.pool(lane.slot, lane.x_last, *weights_.norm, config_.hidden_size, eps_, place_.length);
  }
  backend_.end(lane.slot);
}

// x += in * W^T. A rank of a tensor-parallel group has the columns of W for its own features only,
// so there the sum goes over the ranks.
void Encoder::add(Lane& lane, Buffer& in, kernels::LinearWeight& weight, Rows which) {
  const bool last = which == Rows::kLast;
  const std::int64_t rows = last ? lane.vectors() : lane.tokens();
  if (place_.split != GroupSplit::kTensor) {
    backend_.linear_add(last ? lane.x_last : lane.x, in, weight, rows);
    return;
  }
  const Workspace& w = workspace_;
  const std::int64_t first_row = last ? lane.place.first_last_row : lane.place.first_row;
  RowsView partial(*w.partial, first_row, config_.hidden_size, element_bytes());
  backend_.linear(partial, in, weight, rows);
  place_.communicator->reduce_add({.partial = w.partial.get(),
                                   .x = last ? w.x_last.get() : w.x.get(),
                                   .mean_squares = last ? nullptr : w.mean_squares.get(),
                                   .first_row = first_row,
                                   .rows = rows,
                                   .hidden = config_.hidden_size,
                                   .eps = eps_},
                                  lane.place.index);
  if (!last && lane.squares) lane.norm.mean_squares = &*lane.squares;
}

void Encoder::advance_other(const Lane& lane) {
  if (lane.place.index != Communicator::kNoLane) {
    place_.communicator->advance(1 - lane.place.index);
  }
}

// What the lane's last collective gives is needed from here on.
void Encoder::join(const Lane& lane) {
  if (place_.split == GroupSplit::kTensor) place_.communicator->wait(lane.place.index);
}

// The keys and values in the rows of `qkv`, from `column` on, to all ranks.
Buffer& Encoder::gather(Lane& lane, std::int64_t source_width, std::int64_t column) {
  Buffer& gathered = *workspace_.gathered[gathered_turn_];
  gathered_turn_ = 1 - gathered_turn_;
  place_.communicator->gather_rows({.gathered = &gathered,
                                    .source = &lane.qkv,
                                    .source_width = source_width,
                                    .source_column = column,
                                    .width = 2 * shape_.attention.kv_width(),
                                    .slot = lane.place.staged_slot});
  return gathered;
}

Backend::QkNormRope Encoder::qk_options(const LayerWeights& weights,
                                        const Backend::RowNorm& norm) const {
  return {.norm = norm,
          .q_norm = weights.q_norm.get(),
          .k_norm = weights.k_norm.get(),
          .rope_theta = config_.rope_theta};
}

std::size_t Encoder::element_bytes() const { return kernels::size_of(backend_.activation_type()); }
std::size_t Encoder::residual_bytes() const { return kernels::size_of(backend_.residual_type()); }

}  // namespace tessera::worker
