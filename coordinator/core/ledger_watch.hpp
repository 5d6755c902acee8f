#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "coordinator/core/events/events.hpp"

namespace tessera::coordinator {

// What a coordinator learns of its ledger when its term begins.
struct LedgerInfo {
  std::string id;                 // 32 hex digits, made when the ledger was founded.
  std::uint64_t term = 1;         // Of this coordinator.
  std::uint64_t term_before = 0;  // The last one that the ledger knows; 0: none.
  std::string warning;            // What is known to have happened to it.
  Micros check_every_us = 1'000'000;
};

// Notices that the ledger is not what it was: led by another coordinator, emptied, or an older copy
// of itself. It asks the ledger each second whether this term still holds there, takes note of
// every answer to others, and hears what workers and clients have seen. What it concludes is an
// action: the end of the process when another leads, else a new term, above all that is known, on
// what the ledger has now. Pure: the moment is an argument.
class LedgerWatch {
 public:
  explicit LedgerWatch(LedgerInfo info) : info_(std::move(info)) {}

  void tick(Micros now, Actions& actions);
  void on_state(bool up, Micros now);
  // True when the answer was to the watch, or ends this term.
  bool on_reply(const LedgerReply& reply, Actions& actions);

  // A worker or a client names the ledger and the highest term that it has seen; an empty id says
  // nothing. `who` is for people. False when a worker knows a newer term of this ledger: then the
  // ledger is asked which holds, and the worker must ask again. What a client says is noted only.
  enum class Trust : std::uint8_t { kWorker, kClient };
  bool on_claim(Trust trust, std::string_view who, std::string_view ledger_id,
                std::uint64_t term_seen, Actions& actions);

  const LedgerInfo& info() const { return info_; }
  double away_s(Micros now) const;

 private:
  void ask(std::uint64_t id, Actions& actions);
  void begin_term(std::string why, Actions& actions);
  void warn(std::string what);

  LedgerInfo info_;
  bool up_ = true;
  Micros away_since_ = 0;
  Micros asked_at_ = 0;
  bool asked_ = false;  // And not answered.
  bool term_is_over_ = false;
  std::uint64_t claimed_term_ = 0;  // The newest that somebody knows, if newer than ours.
  std::string claimed_by_;
  bool claim_asked_ = false;
};

}  // namespace tessera::coordinator
