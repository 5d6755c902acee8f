#include "worker/engine/pass_pipeline.hpp"

#include <utility>

#include "common/check.hpp"
#include "worker/split/token_split.hpp"

namespace tessera::worker {
namespace {

using Kind = PassSteps::Kind;

// A pass that is shorter than this many pieces is not worth a cut.
constexpr double kWholePieces = 2;

}  // namespace

PassCutter::PassCutter(const ModelConfig& config, double piece_s)
    : layers_(static_cast<int>(config.num_hidden_layers)), piece_s_(piece_s) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto q = static_cast<double>(config.q_width());
  const auto kv = static_cast<double>(config.kv_width());
  const auto intermediate = static_cast<double>(config.intermediate_size);
  per_token_ = {hidden * (q + 2 * kv), hidden * q, 2 * hidden * intermediate,
                hidden * intermediate};
  per_pair_ =
      attention_pair_cost(config) * static_cast<double>(config.linear_parameters_per_layer());
}

void PassCutter::add(int slot, const PassCost& cost) {
  waiting_.push_back({.slot = slot, .cost = cost, .steps = PassSteps(layers_, cost.strands)});
}

PassPiece PassCutter::whole(int slot, int strands) const {
  return {.slot = slot, .steps = PassSteps(layers_, strands).count(), .ends = true};
}

std::optional<PassPiece> PassCutter::next() {
  if (waiting_.empty()) return std::nullopt;
  Waiting& pass = waiting_.front();
  const bool cut = !pass.cost.whole && pass.cost.seconds > kWholePieces * piece_s_;
  PassPiece piece{.slot = pass.slot, .first_step = pass.next_step};
  double queued_s = 0;
  while (pass.next_step < pass.steps.count() && (!cut || queued_s < piece_s_)) {
    queued_s += cut ? seconds(pass, pass.steps.at(pass.next_step)) : 0;
    ++pass.next_step;
    ++piece.steps;
  }
  piece.ends = pass.next_step == pass.steps.count();
  if (piece.ends) waiting_.pop_front();
  return piece;
}

// The step's share of the pass's multiplications, all layers being like the first.
double PassCutter::seconds(const Waiting& pass, const PassSteps::Step& step) const {
  const double pairs = per_pair_ * pass.cost.sum_of_squares / 2;
  const auto products = [&](int i) {
    return pass.cost.tokens * per_token_.at(static_cast<std::size_t>(i));
  };
  const double layer = products(0) + products(1) + products(2) + products(3) + pairs;
  double work = 0;
  switch (step.kind) {
    case Kind::kStart:
    case Kind::kFinish:
      break;
    case Kind::kProject:
    case Kind::kAttendLast:
      work = products(0);
      break;
    case Kind::kAttend:
      work = products(1) + pairs;
      break;
    case Kind::kGate:
      work = products(2);
      break;
    case Kind::kDown:
      work = products(3);
      break;
  }
  return pass.cost.seconds * work / (layer * layers_ * pass.cost.strands);
}

PassPipeline::PassPipeline(PassCutter cutter, Device device, int slots, std::size_t pieces_ahead)
    : cutter_(std::move(cutter)),
      device_(std::move(device)),
      pieces_ahead_(pieces_ahead),
      busy_(static_cast<std::size_t>(slots)) {}

void PassPipeline::add(int slot, const PassCost& cost) {
  CHECK(!busy_.at(static_cast<std::size_t>(slot)));
  busy_.at(static_cast<std::size_t>(slot)) = true;
  cutter_.add(slot, cost);
  queue_all();
}

void PassPipeline::add_express(int slot) {
  CHECK(!busy_.at(static_cast<std::size_t>(slot)));
  busy_.at(static_cast<std::size_t>(slot)) = true;
  launch(cutter_.whole(slot, 1));
}

bool PassPipeline::run_until_done(int slot, const std::function<bool()>& interrupted) {
  while (busy_.at(static_cast<std::size_t>(slot))) {
    if (interrupted()) return false;
    if (!queue_more()) retire_oldest();
  }
  queue_all();  // The device has work while the caller looks at the vectors.
  return true;
}

void PassPipeline::queue_all() {
  while (queue_more()) {
  }
}

bool PassPipeline::queue_more() {
  const auto piece = queued_.size() < pieces_ahead_ ? cutter_.next() : std::nullopt;
  if (piece) launch(*piece);
  return piece.has_value();
}

void PassPipeline::launch(const PassPiece& piece) {
  queued_.push_back({piece, device_.launch(piece)});
}

void PassPipeline::retire_oldest() {
  CHECK(!queued_.empty());
  const Queued oldest = queued_.front();
  device_.wait(oldest.piece, oldest.ticket);
  queued_.pop_front();
  if (oldest.piece.ends) busy_.at(static_cast<std::size_t>(oldest.piece.slot)) = false;
}

}  // namespace tessera::worker
