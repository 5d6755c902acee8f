#include "coordinator/core/scheduling/waiting_census.hpp"

#include <algorithm>

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

// The longest of each class but the last.
constexpr std::array<std::uint32_t, WaitingCensus::kClasses - 1> kLongest = {64, 256, 1024, 4096,
                                                                             16'384};
constexpr std::array<std::string_view, WaitingCensus::kClasses> kNames = {
    "1-64", "65-256", "257-1024", "1025-4096", "4097-16384", "16385+"};

}  // namespace

std::string_view WaitingCensus::class_name(std::size_t length_class) {
  return kNames.at(length_class);
}

std::size_t WaitingCensus::class_of(std::uint32_t length) {
  return static_cast<std::size_t>(std::ranges::lower_bound(kLongest, length) - kLongest.begin());
}

Micros WaitingCensus::Cell::age(Micros now) const {
  return oldest == nullptr ? 0 : now - oldest->census.since;
}

WaitingCensus::Cell& WaitingCensus::cell_of(const Flight& flight) {
  return cells_[static_cast<std::size_t>(flight.lane)][class_of(flight.length())];
}

void WaitingCensus::add(Flight* flight, Micros now) {
  Cell& cell = cell_of(*flight);
  flight->census = {.since = now, .older = cell.youngest, .younger = nullptr};
  (cell.youngest == nullptr ? cell.oldest : cell.youngest->census.younger) = flight;
  cell.youngest = flight;
  ++cell.items;
  cell.tokens += flight->length();
}

void WaitingCensus::remove(Flight* flight) {
  Cell& cell = cell_of(*flight);
  CHECK(cell.items > 0);
  const Flight::Census place = flight->census;
  (place.older == nullptr ? cell.oldest : place.older->census.younger) = place.younger;
  (place.younger == nullptr ? cell.youngest : place.younger->census.older) = place.older;
  flight->census = {};
  --cell.items;
  cell.tokens -= flight->length();
}

}  // namespace tessera::coordinator
