#include "clients/cpp/request_table.hpp"

#include <algorithm>

namespace tessera::client {

using std::chrono::milliseconds;

milliseconds back_off(std::uint32_t refusals, std::uint32_t retry_after_ms) {
  constexpr std::int64_t kFirstMs = 50;
  constexpr std::int64_t kLastMs = 5000;
  const std::int64_t doubled = kFirstMs << std::min(refusals, 10U);
  return milliseconds(std::max<std::int64_t>(std::min(doubled, kLastMs), retry_after_ms));
}

std::future<RequestTable::Reply> RequestTable::add(std::uint64_t id, protocol::Message message,
                                                   TimePoint now, TimePoint deadline) {
  CHECK(!pending_.contains(id));
  Pending& pending = pending_[id];
  pending.message = std::move(message);
  pending.deadline = deadline;
  pending.send_at = now;
  return pending.reply.get_future();
}

bool RequestTable::settle(std::uint64_t id, protocol::Message answer) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) {
    return false;
  }
  found->second.reply.set_value(std::move(answer));
  pending_.erase(found);
  return true;
}

bool RequestTable::refuse(const protocol::ErrorReply& error, TimePoint now) {
  const auto found = pending_.find(error.request_id);
  if (found == pending_.end()) {
    return false;
  }
  Pending& pending = found->second;
  const Error reason{error.code, error.message};
  const bool again = error.code == ErrorCode::kResourceExhausted || error.retry_after_ms > 0;
  const TimePoint send_at = now + back_off(pending.refusals, error.retry_after_ms);
  if (again && send_at < pending.deadline) {
    ++pending.refusals;
    pending.last_refusal = reason;
    pending.send_at = send_at;
    return true;
  }
  pending.reply.set_value(reason);
  pending_.erase(found);
  return true;
}

void RequestTable::send_all_again(TimePoint now) {
  for (auto& [id, pending] : pending_) {
    pending.send_at = std::min(pending.send_at, now);
  }
}

void RequestTable::fail_all(const Error& error) {
  for (auto& [id, pending] : pending_) {
    pending.reply.set_value(error);
  }
  pending_.clear();
}

void RequestTable::fail_sent(const Error& error) {
  for (auto it = pending_.begin(); it != pending_.end();) {
    if (it->second.send_at != TimePoint::max()) {
      ++it;
      continue;
    }
    it->second.reply.set_value(error);
    it = pending_.erase(it);
  }
}

void RequestTable::collect(TimePoint now, Outbox& outbox) {
  for (auto it = pending_.begin(); it != pending_.end();) {
    Pending& pending = it->second;
    if (pending.deadline <= now) {
      const bool refused = pending.refusals > 0;
      pending.reply.set_value(refused
                                  ? pending.last_refusal
                                  : Error{ErrorCode::kDeadlineExceeded,
                                          "the coordinator did not answer before the deadline"});
      it = pending_.erase(it);
      continue;
    }
    if (pending.send_at <= now) {
      outbox.push_back(pending.message);
      pending.send_at = TimePoint::max();
    }
    ++it;
  }
}

TimePoint RequestTable::next_due() const {
  TimePoint due = TimePoint::max();
  for (const auto& [id, pending] : pending_) {
    due = std::min({due, pending.deadline, pending.send_at});
  }
  return due;
}

}  // namespace tessera::client
