#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "worker/encoder/pass_steps.hpp"

namespace tessera::worker {

// A pass as far as its cutting into pieces needs to know it.
struct PassCost {
  double tokens = 0;
  double sum_of_squares = 0;
  double seconds = 0;  // that it takes alone; 0: not known, and then it is not cut
  int strands = 1;
  bool whole = false;  // never to be cut
};

// Steps of a slot's pass that are queued together.
struct PassPiece {
  int slot = 0;
  int first_step = 0;
  int steps = 0;
  bool ends = false;
};

// Cuts passes into pieces of about `piece_s` each, first come, first served. Pure.
class PassCutter {
 public:
  PassCutter(const ModelConfig& config, double piece_s);

  void add(int slot, const PassCost& cost);
  // The next piece to queue; none when all passes are queued whole.
  std::optional<PassPiece> next();
  // All of a pass at once.
  PassPiece whole(int slot, int strands) const;

 private:
  struct Waiting {
    int slot = 0;
    PassCost cost;
    PassSteps steps;
    int next_step = 0;
  };
  double seconds(const Waiting& pass, const PassSteps::Step& step) const;

  const int layers_;
  const double piece_s_;
  // Multiplications for a token in a layer's q, k and v, o, gate and up, down; and for a pair of
  // tokens in its attention.
  std::array<double, 4> per_token_{};
  double per_pair_ = 0;
  std::deque<Waiting> waiting_;
};

// Keeps a device busy with no more than a few pieces queued on it, so that an express batch that
// comes waits for these and for nothing else; the passes of other slots go on behind it. Owned and
// called by the engine's thread.
class PassPipeline {
 public:
  // What runs the pieces: `launch` queues one and returns at once with a ticket, `wait` blocks
  // until that piece has run, and where it `ends` a pass until the vectors are on the host.
  struct Device {
    std::function<std::uint64_t(const PassPiece&)> launch;
    std::function<void(const PassPiece&, std::uint64_t)> wait;
  };
  // `pieces_ahead`: 2, so that one follows the running one without a gap; 1 where a gap is short
  // beside a piece.
  PassPipeline(PassCutter cutter, Device device, int slots, std::size_t pieces_ahead);

  // A pass behind those that were added before. Requires that the slot's last one was waited for.
  void add(int slot, const PassCost& cost);
  // A pass in front of all that is not queued yet; it is queued at once, whole.
  void add_express(int slot);
  // Goes on with all passes until the slot's is done, or until `interrupted` says yes, which is
  // asked between two pieces; returns whether the pass is done.
  bool run_until_done(int slot, const std::function<bool()>& interrupted);

 private:
  struct Queued {
    PassPiece piece;
    std::uint64_t ticket = 0;
  };
  // A piece, where there is room and one left; all of these.
  bool queue_more();
  void queue_all();
  void launch(const PassPiece& piece);
  void retire_oldest();

  PassCutter cutter_;
  const Device device_;
  const std::size_t pieces_ahead_;
  std::deque<Queued> queued_;
  std::vector<bool> busy_;  // by slot
};

}  // namespace tessera::worker
