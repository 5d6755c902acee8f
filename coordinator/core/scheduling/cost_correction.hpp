#pragma once

#include <algorithm>

namespace tessera::coordinator {

// A worker states what its batches cost as it measured at its start, perhaps on a machine that was
// busy with something else. What its batches then take corrects that: the factor is the time that
// the last few dozen took over the time that was stated for them. Begins at 1 and moves slowly, so
// that one odd batch (a paused process, a first use of a kernel) changes little.
class CostCorrection {
 public:
  // Seconds; nothing is learnt from batches for which nothing was stated.
  void on_batch(double stated_s, double taken_s) {
    if (!(stated_s > 0)) {
      return;
    }
    if (stated_s_ == 0) {
      stated_s_ = taken_s_ = kPriorBatches * stated_s;
    }
    stated_s_ = kKept * stated_s_ + stated_s;
    taken_s_ = kKept * taken_s_ + std::clamp(taken_s, stated_s / kFactorMax, stated_s * kFactorMax);
  }
  // What a stated cost is to be multiplied with.
  double factor() const { return stated_s_ == 0 ? 1 : taken_s_ / stated_s_; }

 private:
  static constexpr double kKept = 0.95;
  static constexpr double kPriorBatches = 4;
  static constexpr double kFactorMax = 32;

  double stated_s_ = 0;  // Sums, the older the less.
  double taken_s_ = 0;
};

}  // namespace tessera::coordinator
