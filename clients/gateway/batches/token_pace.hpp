#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace tessera::gateway {

// How fast a batch hands its items over where its caller's key has a quota: a minute's worth at
// once at most, and then as fast as the quota says. What items have is guessed first and put right
// by their result. Pure; its owner synchronises.
class TokenPace {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // 0: no quota, always ready.
  TokenPace(std::uint64_t tokens_per_minute, TimePoint now)
      : per_minute_(static_cast<double>(tokens_per_minute)), left_(per_minute_), at_(now) {}

  bool ready(TimePoint now) {
    refill(now);
    return per_minute_ == 0 || left_ > 0;
  }
  void spend(double tokens) { left_ -= tokens; }
  void correct(double guessed, double counted) { left_ += guessed - counted; }

 private:
  void refill(TimePoint now) {
    const double minutes = std::chrono::duration<double, std::ratio<60>>(now - at_).count();
    left_ = std::min(per_minute_, left_ + per_minute_ * std::max(0.0, minutes));
    at_ = now;
  }
  double per_minute_;
  double left_;
  TimePoint at_;
};

}  // namespace tessera::gateway
