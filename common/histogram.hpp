#pragma once

#include <span>

#include "common/wire/protocol_metrics.hpp"

namespace tessera {

// Upper bounds in seconds, for anything from one short batch to a deadline: 0.1 ms to 60 s.
std::span<const double> seconds_bounds();
// Of a share, 0.1 to 1.
std::span<const double> share_bounds();

// `bounds` ascend.
protocol::Histogram make_histogram(std::span<const double> bounds);

// Counts `times` values of the same size. A value that is not a number is left out.
void observe(protocol::Histogram& histogram, double value, std::uint64_t times = 1);

// Whether it is one: as many counts as it must have, bounds that ascend, finite numbers. A peer's
// is checked before it is used.
bool is_valid(const protocol::Histogram& histogram);

// Mean of all values; 0 where there are none.
double mean(const protocol::Histogram& histogram);

}  // namespace tessera
