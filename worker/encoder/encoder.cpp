#include "worker/encoder/encoder.hpp"

#include <algorithm>
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

// A batch or a half of one, and its rows of the workspace.
struct Encoder::Strand {
  struct Place {
    int index = Communicator::kNoLane;
    Region region = Region::kBatch;
    int staged_slot = 0;
    std::int64_t first_row = 0;       // of buffers of tokens
    std::int64_t first_last_row = 0;  // of buffers of last tokens
  };

  Strand(const Encoder& e, const Input& input, const Place& place_of_strand)
      : slot(*input.slot),
        batch(input.batch),
        place(place_of_strand),
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
  Buffer* gathered = nullptr;       // of the layer, for a part
  std::size_t gathered_turn = 0;
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

Encoder::Strand Encoder::strand(const Input& input, Region region, int staged_slot) const {
  const bool express = region == Region::kExpress;
  return {*this,
          input,
          {.region = region,
           .staged_slot = staged_slot,
           .first_row = express ? workspace_.express_row : 0,
           .first_last_row = express ? workspace_.express_last_row : 0}};
}

std::unique_ptr<Encoder::Pass> Encoder::start(BatchSlot& slot, const PackedBatchView& batch,
                                              Region region) {
  return std::make_unique<Pass>(*this, std::vector{strand({&slot, batch}, region)});
}

std::unique_ptr<Encoder::Pass> Encoder::start_halves(const Input& first, const Input& second) {
  CHECK(place_.split == GroupSplit::kTensor);
  return std::make_unique<Pass>(
      *this, std::vector{Strand(*this, first, {.index = 0}),
                         Strand(*this, second,
                                {.index = 1,
                                 .first_row = whole_rows(first.batch.total_tokens()),
                                 .first_last_row = whole_rows(first.batch.num_sequences())})});
}

std::unique_ptr<Encoder::Pass> Encoder::start_part(BatchSlot& slot, const PackedBatchView& part,
                                                   int staged_slot, Region region) {
  CHECK(place_.split == GroupSplit::kTokens);
  return std::make_unique<Pass>(*this, std::vector{strand({&slot, part}, region, staged_slot)});
}

void Encoder::rehearse(BatchSlot& slot, const PackedBatchView& batch) {
  Pass pass(*this, {strand({&slot, batch}, Region::kBatch)});
  const int second_layer = std::min(PassSteps(2, 1).last_layer(), pass.steps_.last_layer());
  pass.run(second_layer);
  pass.next_ = std::max(pass.next_, pass.steps_.last_layer());
  pass.run_all();
}

Encoder::Pass::Pass(Encoder& encoder, std::vector<Strand> strands)
    : encoder_(encoder),
      steps_(static_cast<int>(encoder.weights_.layers.size()), static_cast<int>(strands.size())),
      strands_(std::move(strands)) {}

Encoder::Pass::~Pass() = default;

void Encoder::Pass::run(int count) {
  for (int i = 0; i < count && !done(); ++i) {
    const PassSteps::Step step = steps_.at(next_++);
    if (step.kind == PassSteps::Kind::kStart) {
      start();
    } else if (strands_.front().tokens() == 0) {
      encoder_.gather_nothing(strands_.front(), step.kind);
    } else {
      run(step);
    }
  }
}

void Encoder::Pass::start() {
  for (Strand& strand : strands_) {
    if (strand.tokens() == 0) continue;
    if (encoder_.backend_.begin(strand.slot, strand.batch) == Backend::Start::kReplay) {
      CHECK(strands_.size() == 1);
      encoder_.backend_.end(strand.slot);
      next_ = steps_.count();
      return;
    }
    encoder_.backend_.embed(strand.x, *encoder_.weights_.embed_tokens, strand.slot,
                            encoder_.config_.hidden_size);
  }
  if (strands_.size() == 1 && encoder_.run_at_once(strands_.front())) next_ = steps_.last_layer();
}

void Encoder::Pass::run(const PassSteps::Step& step) {
  using Kind = PassSteps::Kind;
  Strand& strand = strands_[static_cast<std::size_t>(step.strand)];
  const LayerWeights& weights = encoder_.weights_.layers[static_cast<std::size_t>(step.layer)];
  switch (step.kind) {
    case Kind::kStart:
      break;
    case Kind::kProject:
      encoder_.project(strand, weights);
      break;
    case Kind::kAttend:
      encoder_.attend(strand, weights);
      break;
    case Kind::kGate:
      encoder_.gate(strand, weights);
      break;
    case Kind::kDown:
      encoder_.down(strand, weights);
      break;
    case Kind::kAttendLast:
      encoder_.attend_last(strand, weights);
      break;
    case Kind::kFinish:
      encoder_.finish(strand, weights);
      break;
  }
}

// A rank without tokens of a batch that was cut: the others' gathers still want this one.
void Encoder::gather_nothing(Strand& strand, PassSteps::Kind kind) {
  const bool last = kind == PassSteps::Kind::kAttendLast;
  const int gathers = last && weights_.layers.size() % 2 == 1 ? 2 : 1;
  for (int i = 0; i < gathers && (last || kind == PassSteps::Kind::kProject); ++i) {
    gather(strand, shape_.attention.qkv_width(), 0);
  }
}

// All layers but the last, where the backend has a way through them.
bool Encoder::run_at_once(Strand& strand) {
  if (place_.split == GroupSplit::kTensor || strand.is_part() || strand.tokens() == 0 ||
      layer_operands_.empty()) {
    return false;
  }
  return backend_.run_layers({.layers = layer_operands_,
                              .x = &strand.x,
                              .qkv = &strand.qkv,
                              .attention = &strand.attention,
                              .mlp = &strand.mlp,
                              .shape = shape_.attention,
                              .eps = eps_,
                              .rope_theta = config_.rope_theta},
                             strand.slot);
}

void Encoder::project(Strand& strand, const LayerWeights& weights) {
  const kernels::AttentionShape& heads = shape_.attention;
  join(strand);
  backend_.qkv_projection(strand.qkv, strand.x, *weights.qkv, strand.slot, heads,
                          qk_options(weights, strand.norm));
  strand.gathered =
      strand.is_part() ? &gather(strand, heads.qkv_width(), heads.q_width()) : nullptr;
}

void Encoder::attend(Strand& strand, const LayerWeights& weights) {
  backend_.attention(strand.attention, strand.qkv, strand.gathered, strand.slot, shape_.attention);
  advance_other(strand);
  add(strand, strand.attention, *weights.o, Rows::kTokens);
}

void Encoder::gate(Strand& strand, const LayerWeights& weights) {
  join(strand);
  backend_.swiglu_projection(strand.mlp, strand.x, *weights.gate_up, strand.tokens(), strand.norm);
}

void Encoder::down(Strand& strand, const LayerWeights& weights) {
  advance_other(strand);
  add(strand, strand.mlp, *weights.down, Rows::kTokens);
}

void Encoder::attend_last(Strand& strand, const LayerWeights& weights) {
  const kernels::AttentionShape& heads = shape_.attention;
  join(strand);
  backend_.kv_projection(strand.qkv, strand.x, *weights.qkv, strand.slot, heads,
                         qk_options(weights, strand.norm));
  Buffer* kv = strand.is_part() ? &gather(strand, 2 * heads.kv_width(), 0) : &strand.qkv;
  // So that every pass begins with the same buffer, as a recorded one must.
  if (strand.is_part() && weights_.layers.size() % 2 == 1) gather(strand, 2 * heads.kv_width(), 0);
  if (strand.vectors() == 0) return;
  backend_.gather_last(strand.x_last, strand.x, strand.slot, config_.hidden_size);
  backend_.last_q_projection(strand.q_last, strand.x_last, *weights.qkv, strand.slot, heads,
                             qk_options(weights, {.eps = eps_}));
  backend_.last_attention(strand.attention, strand.q_last, *kv, strand.slot, heads);
  add(strand, strand.attention, *weights.o, Rows::kLast);
}

void Encoder::finish(Strand& strand, const LayerWeights& weights) {
  if (strand.vectors() > 0) {
    join(strand);
    backend_.swiglu_projection(strand.mlp, strand.x_last, *weights.gate_up, strand.vectors(),
                               {.eps = eps_});
    add(strand, strand.mlp, *weights.down, Rows::kLast);
    join(strand);
    backend_.pool(strand.slot, strand.x_last, *weights_.norm, config_.hidden_size, eps_,
                  place_.length);
  }
  backend_.end(strand.slot);
}

// x += in * W^T. A rank of a tensor-parallel group has the columns of W for its own features only,
// so there the sum goes over the ranks.
void Encoder::add(Strand& strand, Buffer& in, kernels::LinearWeight& weight, Rows which) {
  const bool last = which == Rows::kLast;
  const std::int64_t rows = last ? strand.vectors() : strand.tokens();
  if (place_.split != GroupSplit::kTensor) {
    backend_.linear_add(last ? strand.x_last : strand.x, in, weight, rows);
    return;
  }
  const Workspace& w = workspace_;
  const std::int64_t first_row = last ? strand.place.first_last_row : strand.place.first_row;
  RowsView partial(*w.partial, first_row, config_.hidden_size, element_bytes());
  backend_.linear(partial, in, weight, rows);
  place_.communicator->reduce_add({.partial = w.partial.get(),
                                   .x = last ? w.x_last.get() : w.x.get(),
                                   .mean_squares = last ? nullptr : w.mean_squares.get(),
                                   .first_row = first_row,
                                   .rows = rows,
                                   .hidden = config_.hidden_size,
                                   .eps = eps_},
                                  strand.place.index);
  if (!last && strand.squares) strand.norm.mean_squares = &*strand.squares;
}

void Encoder::advance_other(const Strand& strand) {
  if (strand.place.index != Communicator::kNoLane) {
    place_.communicator->advance(1 - strand.place.index);
  }
}

// What the strand's last collective gives is needed from here on.
void Encoder::join(const Strand& strand) {
  if (place_.split == GroupSplit::kTensor) place_.communicator->wait(strand.place.index);
}

// The keys and values in the rows of `qkv`, from `column` on, to all ranks.
Buffer& Encoder::gather(Strand& strand, std::int64_t source_width, std::int64_t column) {
  const auto& buffers =
      strand.place.region == Region::kExpress ? workspace_.express_gathered : workspace_.gathered;
  Buffer& gathered = *buffers[strand.gathered_turn];
  strand.gathered_turn = 1 - strand.gathered_turn;
  place_.communicator->gather_rows({.gathered = &gathered,
                                    .source = &strand.qkv,
                                    .source_width = source_width,
                                    .source_column = column,
                                    .width = 2 * shape_.attention.kv_width(),
                                    .slot = strand.place.staged_slot});
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
