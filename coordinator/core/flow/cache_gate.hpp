#pragma once

#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

namespace tessera::coordinator {

struct CacheGateOptions {
  Micros query_wait_us = 40'000;  // The longest that a query waits for the second cache level;
  Micros bulk_wait_us = 500'000;  // chunks of jobs have more time.
  int late_max = 3;               // So many late answers in a row shut the gate.
  Micros pause_us_min = 1'000'000;
  Micros pause_us_max = 30'000'000;
};

// Whether the second cache level is worth asking. It is there to save work: a server that hangs
// without closing its connection must not cost every query its patience. After some late answers in
// a row nothing is asked for a while; then one lookup tries it, and a late answer doubles the
// pause. Pure: the moment is an argument.
class CacheGate {
 public:
  explicit CacheGate(const CacheGateOptions& options = {}) : options_(options) {}

  // Whether to ask now. While the gate is shut, true means that this lookup is the one that tries.
  bool may_ask(Micros now);
  void on_answer();
  void on_late(Micros now);

  bool is_open() const { return pause_us_ == 0; }
  Micros patience(protocol::Lane lane) const {
    return lane == protocol::Lane::kInteractive ? options_.query_wait_us : options_.bulk_wait_us;
  }

 private:
  const CacheGateOptions options_;
  int late_in_a_row_ = 0;
  Micros pause_us_ = 0;  // 0: open.
  Micros shut_until_ = 0;
  bool trying_ = false;
};

}  // namespace tessera::coordinator
