#include "coordinator/core/flow/cache_gate.hpp"

#include <algorithm>

#include "common/log.hpp"

namespace tessera::coordinator {

bool CacheGate::may_ask(Micros now) {
  if (is_open()) {
    return true;
  }
  if (trying_ || now < shut_until_) {
    return false;
  }
  trying_ = true;
  return true;
}

void CacheGate::on_answer() {
  if (!is_open()) {
    log::info("the cache server answers again");
  }
  late_in_a_row_ = 0;
  pause_us_ = 0;
  trying_ = false;
}

void CacheGate::on_late(Micros now) {
  if (is_open() && ++late_in_a_row_ < options_.late_max) {
    return;
  }
  if (is_open()) {
    log::warn("the cache server does not answer in time: it is left alone for a while");
  } else if (!trying_) {
    return;  // Asked before the gate was shut.
  }
  pause_us_ = std::clamp(2 * pause_us_, options_.pause_us_min, options_.pause_us_max);
  shut_until_ = now + pause_us_;
  trying_ = false;
}

}  // namespace tessera::coordinator
