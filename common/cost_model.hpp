#pragma once

namespace tessera {

// Seconds that a batch takes on a device: fixed_s + per_token_s * tokens + per_square_s *
// sum(len^2). A worker measures its own at start; the scheduler plans with it.
struct CostModel {
  double fixed_s = 0;
  double per_token_s = 0;
  double per_square_s = 0;

  double seconds(double tokens, double sum_of_squares) const {
    return fixed_s + per_token_s * tokens + per_square_s * sum_of_squares;
  }
};

}  // namespace tessera
