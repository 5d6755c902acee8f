#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <set>
#include <tuple>

#include "kernels/cuda/resources.hpp"

namespace tessera::kernels::cuda {

// For which row counts a fused product is faster than the product and its kernel apart, as timed at
// start. Both give the same bits, so the choice may fall differently on every start. Owned by the
// device's thread.
class FusedChoice {
 public:
  FusedChoice();

  // Times both ways for every bucket of rows up to max_rows. Blocks.
  using Run = std::function<void(std::int64_t rows)>;
  void time(std::int64_t n, std::int64_t k, std::int64_t max_rows, const Run& fused,
            const Run& apart, cudaStream_t stream);

  // False for what was not timed.
  bool is_faster(std::int64_t n, std::int64_t k, std::int64_t rows) const;

 private:
  float median_us(const Run& run, std::int64_t rows, cudaStream_t stream) const;

  std::set<std::tuple<std::int64_t, std::int64_t, std::int64_t>> faster_;  // n, k, bucket
  Event started_;
  Event stopped_;
};

}  // namespace tessera::kernels::cuda
