#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "coordinator/core/scheduling/flight.hpp"

namespace tessera::coordinator {

// Counts the flights that wait for a worker, by lane and by class of length, and knows the oldest
// of each class. A flight is linked into its class while it waits, so every step takes constant
// time. Used by the scheduler, which calls `add` and `remove` whenever a flight begins or ceases to
// wait.
class WaitingCensus {
 public:
  static constexpr std::size_t kClasses = 6;
  // "1-64", "65-256", ... "16385+"
  static std::string_view class_name(std::size_t length_class);
  static std::size_t class_of(std::uint32_t length);

  struct Cell {
    std::uint64_t items = 0;
    std::uint64_t tokens = 0;
    Flight* oldest = nullptr;
    Flight* youngest = nullptr;
    // How long the oldest has waited in its lane; 0 for an empty class.
    Micros age(Micros now) const;
  };

  // `now` never goes back. One that changes lanes is taken out before and begins to wait anew.
  void add(Flight* flight, Micros now);
  void remove(Flight* flight);

  const Cell& cell(protocol::Lane lane, std::size_t length_class) const {
    return cells_[static_cast<std::size_t>(lane)][length_class];
  }

 private:
  Cell& cell_of(const Flight& flight);
  std::array<std::array<Cell, kClasses>, 2> cells_{};
};

}  // namespace tessera::coordinator
