#include "coordinator/core/fair_lane.hpp"

#include <algorithm>
#include <vector>

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

// How many of the oldest are looked at for one that fits.
constexpr int kAgeScanMax = 64;

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
  CHECK(stream->second.waiting.emplace(order_of(*flight), flight).second);
  ++items_;
  tokens_ += flight->length();
}

void FairLane::erase(const std::string& tenant_name, const JobId& job, const Order& order) {
  const auto tenant = tenants_.find(tenant_name);
  CHECK(tenant != tenants_.end());
  const auto stream = tenant->second.streams.find(job);
  CHECK(stream != tenant->second.streams.end());
  CHECK(stream->second.waiting.erase(order) == 1);
  if (stream->second.waiting.empty()) {
    tenant->second.streams.erase(stream);
  }
  if (tenant->second.streams.empty()) {
    tenants_.erase(tenant);
  }
  --items_;
}

void FairLane::remove(Flight* flight) {
  tokens_ -= flight->length();
  erase(flight->stream.tenant, flight->stream.job, order_of(*flight));
}

Flight* FairLane::best(Stream& stream, const LengthWindow& window) const {
  if (!by_age_) {
    auto after = stream.waiting.upper_bound({.length = window.max, .order = 0});
    if (after == stream.waiting.begin() || std::prev(after)->first.length < window.min) {
      return nullptr;
    }
    return std::prev(after)->second;
  }
  int scanned = 0;
  for (auto it = stream.waiting.rbegin(); it != stream.waiting.rend() && scanned < kAgeScanMax;
       ++it, ++scanned) {
    if (it->second->length() >= window.min && it->second->length() <= window.max) {
      return it->second;
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
