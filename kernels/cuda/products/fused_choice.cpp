#include "kernels/cuda/products/fused_choice.hpp"

#include <algorithm>
#include <array>

#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/products/algorithm_cache.hpp"

namespace tessera::kernels::cuda {

FusedChoice::FusedChoice() : started_(make_event(Timing::kOn)), stopped_(make_event(Timing::kOn)) {}

float FusedChoice::median_us(const Run& run, std::int64_t rows, cudaStream_t stream) const {
  constexpr int kRuns = 3;
  std::array<float, kRuns> times{};
  run(rows);  // loads the code
  for (float& us : times) {
    cuda_check(cudaEventRecord(started_.get(), stream));
    run(rows);
    cuda_check(cudaEventRecord(stopped_.get(), stream));
    us = elapsed_ms(started_, stopped_) * 1000;
  }
  std::ranges::nth_element(times, times.begin() + kRuns / 2);
  return times[kRuns / 2];
}

void FusedChoice::time(const Shape& shape, const Run& fused, const Run& apart,
                       cudaStream_t stream) {
  const std::int64_t last = rows_bucket(shape.max_rows);
  for (std::int64_t bucket = rows_bucket(1); bucket <= last; bucket = rows_bucket(bucket + 1)) {
    const std::int64_t rows = std::min(bucket, shape.max_rows);
    if (median_us(fused, rows, stream) < median_us(apart, rows, stream)) {
      faster_.insert({shape.kind, shape.n, shape.k, bucket});
    }
  }
}

bool FusedChoice::is_faster(FusedKind kind, std::int64_t n, std::int64_t k,
                            std::int64_t rows) const {
  return faster_.contains({kind, n, k, rows_bucket(rows)});
}

}  // namespace tessera::kernels::cuda
