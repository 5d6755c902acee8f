#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/cuda_check.hpp"
#include "kernels/cuda/resources.hpp"

namespace tessera::bench {

// Median time of one of `batches` groups of `repeats` launches, after a warm-up. `launch` gets a
// running number, by which it may rotate buffers that would else stay in the cache.
inline double median_us(const std::function<void(int, cudaStream_t)>& launch, int repeats = 5,
                        int batches = 9) {
  using namespace kernels::cuda;
  const Stream stream = make_stream();
  const Event from = make_event(Timing::kOn);
  const Event to = make_event(Timing::kOn);
  int number = 0;
  for (int i = 0; i < repeats; ++i) launch(number++, stream.get());
  std::vector<double> times;
  for (int batch = 0; batch < batches; ++batch) {
    cuda_check(cudaEventRecord(from.get(), stream.get()));
    for (int i = 0; i < repeats; ++i) launch(number++, stream.get());
    cuda_check(cudaEventRecord(to.get(), stream.get()));
    times.push_back(static_cast<double>(elapsed_ms(from, to)) * 1000 / repeats);
  }
  std::ranges::nth_element(times, times.begin() + batches / 2);
  return times[static_cast<std::size_t>(batches / 2)];
}

}  // namespace tessera::bench
