#include "common/histogram.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace tessera {
namespace {

constexpr std::size_t kBoundsMax = 64;

std::uint64_t total(const protocol::Histogram& histogram) {
  return std::accumulate(histogram.counts.begin(), histogram.counts.end(), std::uint64_t{0});
}

}  // namespace

std::span<const double> seconds_bounds() {
  static constexpr std::array kBounds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                         0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                         1.0,    2.5,     5.0,    10.0,  30.0,   60.0};
  return kBounds;
}

std::span<const double> share_bounds() {
  static constexpr std::array kBounds = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0};
  return kBounds;
}

protocol::Histogram make_histogram(std::span<const double> bounds) {
  return {.bounds = {bounds.begin(), bounds.end()},
          .counts = std::vector<std::uint64_t>(bounds.size() + 1),
          .sum = 0};
}

void observe(protocol::Histogram& histogram, double value, std::uint64_t times) {
  if (!std::isfinite(value)) {
    return;
  }
  const auto bucket = std::ranges::lower_bound(histogram.bounds, value);
  histogram.counts[static_cast<std::size_t>(bucket - histogram.bounds.begin())] += times;
  histogram.sum += value * static_cast<double>(times);
}

bool is_valid(const protocol::Histogram& histogram) {
  const auto& bounds = histogram.bounds;
  return bounds.size() <= kBoundsMax && histogram.counts.size() == bounds.size() + 1 &&
         std::isfinite(histogram.sum) &&
         std::ranges::all_of(bounds, [](double bound) { return std::isfinite(bound); }) &&
         std::ranges::adjacent_find(bounds, std::greater_equal<>()) == bounds.end();
}

double mean(const protocol::Histogram& histogram) {
  const std::uint64_t values = total(histogram);
  return values == 0 ? 0 : histogram.sum / static_cast<double>(values);
}

}  // namespace tessera
