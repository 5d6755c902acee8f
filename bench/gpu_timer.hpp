#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"

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

// Sorted times of functions that take turns, so that a clock that falls as the chip warms favours
// none; the first three rounds are not counted.
inline std::vector<std::vector<double>> times_in_turns_us(
    const std::vector<std::function<void(cudaStream_t)>>& functions, int rounds,
    cudaStream_t stream) {
  using namespace kernels::cuda;
  constexpr int kWarmups = 3;
  const Event from = make_event(Timing::kOn);
  const Event to = make_event(Timing::kOn);
  std::vector<std::vector<double>> times(functions.size());
  for (int round = 0; round < kWarmups + rounds; ++round) {
    for (std::size_t i = 0; i < functions.size(); ++i) {
      cuda_check(cudaEventRecord(from.get(), stream));
      functions[i](stream);
      cuda_check(cudaEventRecord(to.get(), stream));
      const double us = static_cast<double>(elapsed_ms(from, to)) * 1000;
      if (round >= kWarmups) times[i].push_back(us);
    }
  }
  for (auto& of_one : times) std::ranges::sort(of_one);
  return times;
}

// Seconds of one launch once they have followed each other without a pause for long enough that the
// chip is at its power limit.
inline double kept_up_s(const std::function<void(cudaStream_t)>& launch, cudaStream_t stream,
                        double settle_s = 1.5, double timed_s = 1) {
  using namespace kernels::cuda;
  const double first_us = times_in_turns_us({launch}, 1, stream)[0][0];
  const auto launches = [&](double seconds) {
    return std::max(1, static_cast<int>(seconds * 1e6 / first_us));
  };
  const Event from = make_event(Timing::kOn);
  const Event to = make_event(Timing::kOn);
  for (int i = 0; i < launches(settle_s); ++i) launch(stream);
  cuda_check(cudaEventRecord(from.get(), stream));
  for (int i = 0; i < launches(timed_s); ++i) launch(stream);
  cuda_check(cudaEventRecord(to.get(), stream));
  return static_cast<double>(elapsed_ms(from, to)) / 1e3 / launches(timed_s);
}

}  // namespace tessera::bench
