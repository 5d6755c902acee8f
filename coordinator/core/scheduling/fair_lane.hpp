#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "coordinator/core/scheduling/flight.hpp"

namespace tessera::coordinator {

// What the next sequence of a batch may be.
struct LengthWindow {
  std::uint32_t min = 0;
  std::uint32_t max = 0;  // inclusive
};

// The flights of one lane that wait for a worker, shared fairly in tokens: the tenant that has been
// given least goes first, within it the job that has been given least for its weight (virtual
// token counting: whoever comes back after a pause starts level with the others, so that idling
// saves up no credit). Within a job the oldest go first, where `by_age`; otherwise the longest, but
// among neighbours in arrival only: longest first over all that waits would leave each chunk's
// shortest item to the end, so that no chunk would end before its whole window had.
class FairLane {
 public:
  explicit FairLane(bool by_age) : by_age_(by_age) {}

  void add(Flight* flight);
  // Requires that it waits here.
  void remove(Flight* flight);
  // Takes out the next one whose length is in the window; nullptr when there is none.
  Flight* take(const LengthWindow& window);

  bool empty() const { return items_ == 0; }
  std::size_t items() const { return items_; }
  std::uint64_t tokens() const { return tokens_; }

 private:
  struct Order {
    std::uint32_t length = 0;  // 0 for all where by age.
    std::uint64_t order = 0;
    // Ascending: shorter before longer, younger before older; the last is the best.
    bool operator<(const Order& other) const {
      return length != other.length ? length < other.length : order > other.order;
    }
  };
  // Flights that arrived one after the other, a few batches' worth.
  using Class = std::map<Order, Flight*>;
  struct Stream {
    double weight = 1;
    double served = 0;  // tokens per weight
    std::uint64_t arrived_tokens = 0;
    std::map<std::uint64_t, Class> waiting;  // By age class; none is empty.
  };
  // Names by what they were given, least first: whoever is next is found without looking at all.
  using ServedOrder = std::set<std::pair<double, std::string>>;
  struct Tenant {
    double served = 0;  // tokens
    std::map<JobId, Stream> streams;
    ServedOrder order;  // Of the streams.
  };

  Order order_of(const Flight& flight) const;
  void count_as_served(const Flight& flight);
  Flight* take_from(Tenant& tenant, const LengthWindow& window);
  Flight* best(Stream& stream, const LengthWindow& window) const;
  Flight* best_of_class(Class& waiting, const LengthWindow& window) const;

  const bool by_age_;
  std::map<std::string, Tenant> tenants_;  // Only those with something waiting.
  ServedOrder order_;                      // Of the tenants.
  double served_floor_ = 0;  // What the last tenant served had got; newcomers start there.
  std::size_t items_ = 0;
  std::uint64_t tokens_ = 0;
};

}  // namespace tessera::coordinator
