#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <future>
#include <map>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::client {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using Outbox = std::deque<protocol::Message>;

// The questions that wait for their answer: each is sent again when the coordinator asks for
// patience or the connection was lost, and ends in one answer or one error. Pure rules, time is an
// argument; the owner synchronises.
class RequestTable {
 public:
  using Reply = Result<protocol::Message>;

  // `message` carries `id` as its request_id. It is handed out by the next collect().
  std::future<Reply> add(std::uint64_t id, protocol::Message message, TimePoint now,
                         TimePoint deadline);

  // The answer to `id`; false when nobody waits for it (late, or answered before).
  bool settle(std::uint64_t id, protocol::Message answer);

  // RESOURCE_EXHAUSTED, and any error with a retry time, is tried again until the deadline; all
  // others end the request. False when nobody waits.
  bool refuse(const protocol::ErrorReply& error, TimePoint now);

  // After a lost connection: whatever was sent may never have arrived.
  void send_all_again(TimePoint now);
  void fail_all(const Error& error);
  // Of those that were sent and not answered.
  void fail_sent(const Error& error);

  // Appends what is due now to `outbox`; requests past their deadline end in kDeadlineExceeded, or
  // in the coordinator's last refusal.
  void collect(TimePoint now, Outbox& outbox);

  // When collect() must be called next; TimePoint::max() when nothing waits.
  TimePoint next_due() const;

 private:
  struct Pending {
    protocol::Message message;
    TimePoint deadline;
    TimePoint send_at;  // max() while an answer is awaited
    std::uint32_t refusals = 0;
    Error last_refusal{};  // kInternal while there was none
    std::promise<Reply> reply;
  };
  std::map<std::uint64_t, Pending> pending_;
};

// Waiting time before try number `refusals` + 1: what the coordinator asked for, at least doubling
// from 50 ms to 5 s so that many clients do not come back at once.
std::chrono::milliseconds back_off(std::uint32_t refusals, std::uint32_t retry_after_ms);

}  // namespace tessera::client
