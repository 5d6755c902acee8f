#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "common/wire/protocol.hpp"

namespace tessera::cli {

// Results that came before their turn, safe in the folder's ahead/ until they are written in order:
// so they can be acknowledged, and one slow chunk never holds up the others. One thread. Throws
// FatalError when the disk fails.
class AheadStore {
 public:
  // Finds what an earlier run left; chunks below `written` are in the output and are removed.
  AheadStore(const std::string& folder, std::uint64_t written);

  bool contains(std::uint64_t chunk) const { return chunks_.contains(chunk); }
  bool empty() const { return chunks_.empty(); }
  // Returns when the result is safe on the disk.
  void put(std::uint64_t chunk, const protocol::ResultBlock& results);
  protocol::ResultBlock get(std::uint64_t chunk) const;
  // After the chunk is written and the manifest says so.
  void remove_below(std::uint64_t written);

 private:
  std::string path_of(std::uint64_t chunk) const;

  std::string folder_;
  std::set<std::uint64_t> chunks_;
};

}  // namespace tessera::cli
