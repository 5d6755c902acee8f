#pragma once

#include <cstdint>

#include "common/check.hpp"

namespace tessera::worker {

// The steps that a pass over the layers is made of, the same for every batch on every rank of a
// group; between two of them another pass may come. A strand is a batch or one of its two halves.
// Pure.
class PassSteps {
 public:
  enum class Kind : std::uint8_t {
    kStart,       // the batch comes in; embedding
    kProject,     // q, k and v
    kAttend,      // attention, and o
    kGate,        // gate, up and SwiGLU
    kDown,        // down
    kAttendLast,  // of the last layer, all that is for last tokens too
    kFinish,      // the rest of it, pooling, and the vectors' way out
  };
  struct Step {
    Kind kind = Kind::kStart;
    int layer = 0;
    int strand = 0;
  };

  PassSteps(int layers, int strands) : layers_(layers), strands_(strands) {
    CHECK(layers > 0 && (strands == 1 || strands == 2));
  }

  int count() const { return last_layer() + 2 * strands_; }
  // The first step of the last layer.
  int last_layer() const { return 1 + (layers_ - 1) * kSteps * strands_; }
  // In each layer the first half of all strands, then the second.
  Step at(int index) const {
    CHECK(index >= 0 && index < count());
    if (index == 0) return {};
    if (index >= last_layer()) {
      const int step = index - last_layer();
      return {.kind = step < strands_ ? Kind::kAttendLast : Kind::kFinish,
              .layer = layers_ - 1,
              .strand = step % strands_};
    }
    const int step = (index - 1) % (kSteps * strands_);
    const bool first_half = step < 2 * strands_;
    const Kind kind = step % 2 == 0 ? (first_half ? Kind::kProject : Kind::kGate)
                                    : (first_half ? Kind::kAttend : Kind::kDown);
    return {
        .kind = kind, .layer = (index - 1) / (kSteps * strands_), .strand = step / 2 % strands_};
  }

 private:
  static constexpr int kSteps = 4;  // of a layer but the last, for each strand

  int layers_;
  int strands_;
};

}  // namespace tessera::worker
