#pragma once

#include <cstdint>
#include <span>

#include "worker/engine/engine.hpp"

namespace tessera::worker {

// One timed pass.
struct CostSample {
  double tokens = 0;
  double sum_of_squares = 0;
  double seconds = 0;
};

// The cost model nearest to the samples by least squares of relative errors, no term below 0. Pure.
CostModel fit_cost(std::span<const CostSample> samples);

// Runs a few batches of different shapes on an idle engine, about two seconds in all, and fits.
CostModel measure_cost(Engine& engine);

}  // namespace tessera::worker
