#pragma once

#include <array>
#include <cstdint>

#include "common/histogram.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

// What each part of the core counts of its own work, since this coordinator began. Every part owns
// its struct; core_metrics.hpp turns all of them into metrics.
namespace tessera::coordinator {

inline constexpr std::size_t kLanes = 2;
inline constexpr std::size_t kErrorCodes = static_cast<std::size_t>(ErrorCode::kInternal) + 1;
inline constexpr std::size_t kItemSources =
    static_cast<std::size_t>(protocol::ItemSource::kStorageHit) + 1;

inline std::size_t index_of(protocol::Lane lane) { return static_cast<std::size_t>(lane); }
inline std::size_t index_of(ErrorCode code) { return static_cast<std::size_t>(code); }
inline std::size_t index_of(protocol::ItemSource source) {
  return static_cast<std::size_t>(source);
}
inline double seconds_of(Micros span) { return static_cast<double>(span) / 1e6; }

using ErrorCounts = std::array<std::uint64_t, kErrorCodes>;  // By code.

// By lane, in seconds.
struct LaneHistograms {
  std::array<protocol::Histogram, kLanes> lanes = {make_histogram(seconds_bounds()),
                                                   make_histogram(seconds_bounds())};
  void count(protocol::Lane lane, Micros span) { observe(lanes[index_of(lane)], seconds_of(span)); }
};

struct FlowMetrics {
  // Items of units by how they came by their vector; kUnsaid counts those that have none.
  std::array<std::array<std::uint64_t, kItemSources>, kLanes> items{};
  std::array<std::array<std::uint64_t, kItemSources>, kLanes> tokens{};
  ErrorCounts errors{};
  LaneHistograms total;     // Of every item: from its unit's start to its end.
  LaneHistograms tokenize;  // The following of each distinct item that was computed:
  LaneHistograms queue;     // waiting for a worker, all its tries together,
  LaneHistograms compute;   // and its share of its batch's time, by its tokens.
};

struct DispatchMetrics {
  std::uint64_t batches = 0;          // That ended with a result.
  std::uint64_t express_batches = 0;  // Of these.
  std::uint64_t batches_lost = 0;
  std::uint64_t items_retried = 0;
  std::uint64_t workers_lost = 0;
  protocol::Histogram fill = make_histogram(share_bounds());
  protocol::Histogram queue = make_histogram(seconds_bounds());    // Of its oldest item.
  protocol::Histogram compute = make_histogram(seconds_bounds());  // As the worker says.
  protocol::Histogram total = make_histogram(seconds_bounds());    // queue, and away at the worker.
};

struct QueryMetrics {
  std::array<std::uint64_t, kLanes> requests{};
  std::array<std::uint64_t, kLanes> answered{};
  ErrorCounts errors{};    // Of requests refused or ended without an answer.
  LaneHistograms seconds;  // Of those that were answered.
  std::uint64_t quota_refusals = 0;
};

}  // namespace tessera::coordinator
