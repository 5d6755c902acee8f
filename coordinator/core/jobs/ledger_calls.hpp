#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>

#include "coordinator/core/events/events.hpp"

namespace tessera::coordinator {

// What was asked of the ledger and is not answered yet, each with what is done then. Continuations
// name jobs and chunks by number and look them up again: much may have ended meanwhile.
class LedgerCalls {
 public:
  // Called with the ledger's answer; not for what ends the term (LedgerWatch).
  using Continuation = std::function<void(ledger::Reply, Micros, Actions&)>;

  struct Limits {
    std::size_t operations_max = 50'000;
    std::size_t bytes_max = 256U << 20;  // Of contents to be written.
    Micros log_every_us = 1'000'000;     // Refusals by the ledger.
  };

  explicit LedgerCalls(const Limits& limits) : limits_(limits) {}

  void run(ledger::Operation operation, Continuation done, Actions& actions);
  // Answers to other numbers are left alone: the call was of somebody else.
  void on_reply(LedgerReply reply, Micros now, Actions& actions);

  std::size_t under_way() const { return pending_.size(); }
  // So much is under way that nothing new should be begun.
  bool busy() const {
    return pending_.size() >= limits_.operations_max || pending_bytes_ >= limits_.bytes_max;
  }

 private:
  struct Pending {
    Continuation done;
    std::size_t bytes = 0;
  };
  void count_refusal(const ledger::Reply& reply, Micros now);

  const Limits limits_;
  std::unordered_map<std::uint64_t, Pending> pending_;  // By id of the RunLedger.
  std::size_t pending_bytes_ = 0;
  std::uint64_t next_id_ = 1;
  std::uint64_t refusals_ = 0;  // Since they were logged.
  Micros refusals_logged_at_ = 0;
};

}  // namespace tessera::coordinator
