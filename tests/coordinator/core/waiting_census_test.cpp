#include "coordinator/core/scheduling/waiting_census.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace tessera::coordinator {
namespace {

using protocol::Lane;

TEST(WaitingCensus, ClassesCoverAllLengths) {
  struct Case {
    std::uint32_t length;
    std::string_view name;
  };
  for (const Case& c :
       {Case{1, "1-64"}, Case{64, "1-64"}, Case{65, "65-256"}, Case{1024, "257-1024"},
        Case{4096, "1025-4096"}, Case{4097, "4097-16384"}, Case{16'384, "4097-16384"},
        Case{16'385, "16385+"}, Case{4'000'000, "16385+"}}) {
    EXPECT_EQ(WaitingCensus::class_name(WaitingCensus::class_of(c.length)), c.name) << c.length;
  }
}

// Against counting anew, over random comings and goings.
TEST(WaitingCensus, AgreesWithCounting) {
  std::mt19937 random(7);
  const auto below = [&](std::uint32_t bound) { return random() % bound; };
  std::deque<Flight> flights(200);
  for (Flight& flight : flights) {
    flight.ids.resize(1 + below(5000));
    flight.lane = below(2) == 0 ? Lane::kInteractive : Lane::kBulk;
  }
  WaitingCensus census;
  std::vector<Flight*> waiting;
  Micros now = 0;
  for (int step = 0; step < 5000; ++step) {
    now += below(3);
    Flight* flight = &flights[below(200)];
    const auto place = std::ranges::find(waiting, flight);
    if (place == waiting.end()) {
      census.add(flight, now);
      waiting.push_back(flight);
    } else {
      census.remove(flight);
      waiting.erase(place);
    }
    for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
      for (std::size_t c = 0; c < WaitingCensus::kClasses; ++c) {
        std::uint64_t items = 0;
        std::uint64_t tokens = 0;
        Micros age = 0;
        for (const Flight* w : waiting) {
          if (w->lane == lane && WaitingCensus::class_of(w->length()) == c) {
            ++items;
            tokens += w->length();
            age = std::max(age, now - w->census.since);
          }
        }
        const auto& cell = census.cell(lane, c);
        ASSERT_EQ(cell.items, items);
        ASSERT_EQ(cell.tokens, tokens);
        ASSERT_EQ(cell.age(now), age);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::coordinator
