#include "coordinator/core/ledger_watch.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/log.hpp"

namespace tessera::coordinator {
namespace {

using ledger::Status;

// Ids of the watch's own operations; the others count up from 1.
constexpr std::uint64_t kCheckId = 0;
constexpr std::uint64_t kClaimId = std::numeric_limits<std::uint64_t>::max();

}  // namespace

void LedgerWatch::tick(Micros now, Actions& actions) {
  if (up_ && !asked_ && !term_is_over_ && now - asked_at_ >= info_.check_every_us) {
    asked_ = true;
    asked_at_ = now;
    ask(kCheckId, actions);
  }
  if (up_ && claimed_term_ > 0 && !claim_asked_ && !term_is_over_) {
    claim_asked_ = true;  // It refused to answer before.
    ask(kClaimId, actions);
  }
}

void LedgerWatch::on_state(bool up, Micros now) {
  if (up_ && !up) {
    away_since_ = now;
  }
  up_ = up;
}

double LedgerWatch::away_s(Micros now) const {
  return up_ ? 0 : static_cast<double>(std::max<Micros>(now - away_since_, 1)) / 1e6;
}

void LedgerWatch::ask(std::uint64_t id, Actions& actions) {
  actions.push_back(RunLedger{id, ledger::CheckTerm{}});
}

bool LedgerWatch::on_reply(const LedgerReply& reply, Actions& actions) {
  const Status status = reply.reply.status;
  if (status == Status::kFenced && !term_is_over_) {
    term_is_over_ = true;
    actions.push_back(Stop{"another coordinator has taken over this ledger"});
  } else if (status == Status::kWentBack) {
    begin_term("Redis was emptied, or is an older copy of itself", actions);
  }
  if (reply.id == kCheckId) {
    asked_ = false;
  } else if (reply.id == kClaimId) {
    claim_asked_ = false;
    if (status == Status::kDone) {
      // Ours is the newest term that the ledger knows, and somebody has seen a newer one.
      begin_term("Redis is an older copy of itself: " + claimed_by_ + " knows term " +
                     std::to_string(claimed_term_) + ", and the newest there is " +
                     std::to_string(info_.term),
                 actions);
    }
  }
  return term_is_over_ || reply.id == kCheckId || reply.id == kClaimId;
}

void LedgerWatch::begin_term(std::string why, Actions& actions) {
  if (!std::exchange(term_is_over_, true)) {
    actions.push_back(
        BeginTerm{.above = std::max(info_.term, claimed_term_), .why = std::move(why)});
  }
}

void LedgerWatch::warn(std::string what) {
  if (info_.warning.empty()) {  // Once: the first one is what happened.
    log::error("{}", what);
    info_.warning = std::move(what);
  }
}

bool LedgerWatch::on_claim(Trust trust, std::string_view who, std::string_view ledger_id,
                           std::uint64_t term_seen, Actions& actions) {
  if (ledger_id.empty()) {
    return true;
  }
  if (ledger_id != info_.id) {
    warn(std::string(who) + " comes from another ledger than this one: if it belongs to this " +
         "cluster, Redis was emptied or replaced, and what was accepted there is lost");
    return true;
  }
  const bool is_newer = term_seen > info_.term;
  if (trust == Trust::kClient && is_newer) {
    warn(std::string(who) + " knows term " + std::to_string(term_seen) + " of this ledger, " +
         "and its newest here is " + std::to_string(info_.term) +
         ": Redis may be an older copy of itself");
    return true;
  }
  if (term_seen > info_.term_before && term_seen < info_.term) {
    warn("Redis is an older copy of itself and has lost its last writes: " + std::string(who) +
         " knows term " + std::to_string(term_seen) + ", and before this one the last there was " +
         std::to_string(info_.term_before));
  }
  if (is_newer && term_seen > claimed_term_) {
    claimed_term_ = term_seen;
    claimed_by_ = who;
    claim_asked_ = true;
    ask(kClaimId, actions);
  }
  return !is_newer;
}

}  // namespace tessera::coordinator
