#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

namespace tessera::client {

// A set of chunk numbers as ranges: a job of a million chunks that end nearly in order costs a few
// entries. Not synchronised.
class ChunkSet {
 public:
  using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // Inclusive.

  ChunkSet() = default;
  // Ranges may touch or overlap and come in any order; those with last < first are left out.
  explicit ChunkSet(const Ranges& ranges) {
    for (const auto& [first, last] : ranges) {
      insert(first, last);
    }
  }

  bool contains(std::uint32_t chunk) const {
    auto after = ranges_.upper_bound(chunk);
    return after != ranges_.begin() && std::prev(after)->second >= chunk;
  }

  void insert(std::uint32_t chunk) { insert(chunk, chunk); }

  void insert(std::uint64_t first, std::uint64_t last) {
    if (last < first) {
      return;
    }
    auto it = ranges_.upper_bound(first);
    if (it != ranges_.begin() && std::prev(it)->second + 1 >= first) {
      --it;
    }
    while (it != ranges_.end() && it->first <= last + 1) {
      first = std::min(first, it->first);
      last = std::max(last, it->second);
      it = ranges_.erase(it);
    }
    ranges_.emplace(first, last);
  }

  std::uint64_t count() const {
    std::uint64_t total = 0;
    for (const auto& [first, last] : ranges_) {
      total += last - first + 1;
    }
    return total;
  }

  bool empty() const { return ranges_.empty(); }

  // Inclusive, in rising order, neither touching nor overlapping.
  Ranges ranges() const { return {ranges_.begin(), ranges_.end()}; }

  // Calls f(chunk) in rising order.
  template <typename F>
  void for_each(F&& f) const {
    for (const auto& [first, last] : ranges_) {
      for (std::uint64_t chunk = first; chunk <= last; ++chunk) {
        f(static_cast<std::uint32_t>(chunk));
      }
    }
  }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // first -> last, disjoint and not touching
};

}  // namespace tessera::client
