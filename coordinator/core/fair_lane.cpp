#include "coordinator/core/fair_lane.hpp"

#include <algorithm>
#include <vector>

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

// How many of the oldest are looked at for one that fits.
constexpr int kAgeScanMax = 64;
// How many tokens are put in order of length together.
constexpr std::uint64_t kClassTokens = 32'768;

template <typename Map>
std::vector<typename Map::iterator> least_served_first(Map& map) {
  std::vector<typename Map::iterator> order;
  order.reserve(map.size());
  for (auto it = map.begin(); it != map.end(); ++it) {
    order.push_back(it);
  }
  std::ranges::stable_sort(order, {}, [](const auto& it) { return it->second.served; });
  return order;
}

}  // namespace

FairLane::Order FairLane::order_of(const Flight& flight) const {
  return {.length = by_age_ ? 0 : flight.length(), .order = flight.order};
}

void FairLane::add(Flight* flight) {
  auto [tenant, tenant_is_new] = tenants_.try_emplace(flight->stream.tenant);
  if (tenant_is_new) {
    tenant->second.served = served_floor_;
  }
  auto& streams = tenant->second.streams;
  double floor = 0;
  if (!streams.empty()) {
    floor = std::ranges::min_element(streams, {}, [](const auto& s) {
              return s.second.served;
            })->second.served;
  }
  auto [stream, stream_is_new] = streams.try_emplace(flight->stream.job);
  if (stream_is_new) {
    stream->second.weight = flight->weight;
    stream->second.served = floor;
  }
  stream->second.arrived_tokens += flight->length();
  flight->age_class = stream->second.arrived_tokens / kClassTokens;
  CHECK(stream->second.waiting[flight->age_class].emplace(order_of(*flight), flight).second);
  ++items_;
  tokens_ += flight->length();
}

void FairLane::remove(Flight* flight) {
  const auto tenant = tenants_.find(flight->stream.tenant);
  CHECK(tenant != tenants_.end());
  const auto stream = tenant->second.streams.find(flight->stream.job);
  CHECK(stream != tenant->second.streams.end());
  auto& classes = stream->second.waiting;
  const auto waiting = classes.find(flight->age_class);
  CHECK(waiting != classes.end() && waiting->second.erase(order_of(*flight)) == 1);
  if (waiting->second.empty()) {
    classes.erase(waiting);
  }
  if (classes.empty()) {
    tenant->second.streams.erase(stream);
  }
  if (tenant->second.streams.empty()) {
    tenants_.erase(tenant);
  }
  --items_;
  tokens_ -= flight->length();
}

Flight* FairLane::best_of_class(Class& waiting, const LengthWindow& window) const {
  if (!by_age_) {
    auto after = waiting.upper_bound({.length = window.max, .order = 0});
    if (after == waiting.begin() || std::prev(after)->first.length < window.min) {
      return nullptr;
    }
    return std::prev(after)->second;
  }
  int scanned = 0;
  for (auto it = waiting.rbegin(); it != waiting.rend() && scanned < kAgeScanMax; ++it, ++scanned) {
    if (it->second->length() >= window.min && it->second->length() <= window.max) {
      return it->second;
    }
  }
  return nullptr;
}

Flight* FairLane::best(Stream& stream, const LengthWindow& window) const {
  for (auto& [age, waiting] : stream.waiting) {
    if (Flight* flight = best_of_class(waiting, window)) {
      return flight;
    }
  }
  return nullptr;
}

Flight* FairLane::take_from(Tenant& tenant, const LengthWindow& window) {
  if (tenant.streams.size() == 1) {
    return best(tenant.streams.begin()->second, window);
  }
  for (const auto& stream : least_served_first(tenant.streams)) {
    if (Flight* flight = best(stream->second, window)) {
      return flight;
    }
  }
  return nullptr;
}

Flight* FairLane::take(const LengthWindow& window) {
  Flight* taken = nullptr;
  if (tenants_.size() == 1) {
    taken = take_from(tenants_.begin()->second, window);
  } else {
    for (const auto& tenant : least_served_first(tenants_)) {
      taken = take_from(tenant->second, window);
      if (taken != nullptr) {
        break;
      }
    }
  }
  if (taken != nullptr) {
    Tenant& tenant = tenants_.at(taken->stream.tenant);
    Stream& stream = tenant.streams.at(taken->stream.job);
    served_floor_ = std::max(served_floor_, tenant.served);
    tenant.served += taken->length();
    stream.served += taken->length() / stream.weight;
    remove(taken);
  }
  return taken;
}

}  // namespace tessera::coordinator
