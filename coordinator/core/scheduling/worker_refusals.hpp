#pragma once

#include <deque>
#include <string>
#include <vector>

#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

namespace tessera::coordinator {

// Which workers were refused, and why: at most 32 of them, one entry for a worker's name and a
// reason, so that one that is started again and again is one line with a count.
class WorkerRefusals {
 public:
  void record(const protocol::WorkerHello& hello, const std::string& reason, Micros now);
  // The latest first.
  std::vector<protocol::WorkerRefusal> list(Micros now) const;

 private:
  struct Entry {
    protocol::WorkerRefusal refusal;
    Micros at = 0;
  };
  std::deque<Entry> entries_;  // The latest first.
};

}  // namespace tessera::coordinator
