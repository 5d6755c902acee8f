#include "coordinator/core/scheduling/fair_lane.hpp"

#include <algorithm>

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

// How many of the oldest are looked at for one that fits.
constexpr int kAgeScanMax = 64;
// How many tokens are put in order of length together.
constexpr std::uint64_t kClassTokens = 32'768;

}  // namespace

FairLane::Order FairLane::order_of(const Flight& flight) const {
  return {.length = by_age_ ? 0 : flight.length(), .order = flight.order};
}

void FairLane::add(Flight* flight) {
  auto [tenant, tenant_is_new] = tenants_.try_emplace(flight->stream.tenant);
  if (tenant_is_new) {
    tenant->second.served = served_floor_;
    order_.emplace(served_floor_, tenant->first);
  }
  auto& [served, streams, order] = tenant->second;
  const double floor = order.empty() ? 0 : order.begin()->first;
  auto [stream, stream_is_new] = streams.try_emplace(flight->stream.job);
  if (stream_is_new) {
    stream->second.weight = flight->weight;
    stream->second.served = floor;
    order.emplace(floor, stream->first);
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
    tenant->second.order.erase({stream->second.served, stream->first});
    tenant->second.streams.erase(stream);
  }
  if (tenant->second.streams.empty()) {
    order_.erase({tenant->second.served, tenant->first});
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
  for (const auto& [served, job] : tenant.order) {
    if (Flight* flight = best(tenant.streams.at(job), window)) {
      return flight;
    }
  }
  return nullptr;
}

Flight* FairLane::take(const LengthWindow& window) {
  Flight* taken = nullptr;
  for (const auto& [served, name] : order_) {
    taken = take_from(tenants_.at(name), window);
    if (taken != nullptr) {
      break;
    }
  }
  if (taken != nullptr) {
    count_as_served(*taken);
    remove(taken);
  }
  return taken;
}

void FairLane::count_as_served(const Flight& flight) {
  const std::string& name = flight.stream.tenant;
  const JobId& job = flight.stream.job;
  Tenant& tenant = tenants_.at(name);
  Stream& stream = tenant.streams.at(job);
  order_.erase({tenant.served, name});
  tenant.order.erase({stream.served, job});
  served_floor_ = std::max(served_floor_, tenant.served);
  tenant.served += flight.length();
  stream.served += flight.length() / stream.weight;
  order_.emplace(tenant.served, name);
  tenant.order.emplace(stream.served, job);
}

}  // namespace tessera::coordinator
