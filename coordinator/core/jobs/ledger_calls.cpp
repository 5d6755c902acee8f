#include "coordinator/core/jobs/ledger_calls.hpp"

#include <utility>

#include "common/log.hpp"

namespace tessera::coordinator {
namespace {

std::size_t bytes_to_write(const ledger::Operation& operation) {
  if (const auto* accept = std::get_if<ledger::AcceptChunk>(&operation)) {
    return accept->content.size();
  }
  const auto* store = std::get_if<ledger::StoreResult>(&operation);
  return store == nullptr ? 0 : store->content.size();
}

}  // namespace

void LedgerCalls::run(ledger::Operation operation, Continuation done, Actions& actions) {
  const std::uint64_t id = next_id_++;
  const std::size_t bytes = bytes_to_write(operation);
  pending_.emplace(id, Pending{std::move(done), bytes});
  pending_bytes_ += bytes;
  actions.push_back(RunLedger{id, std::move(operation)});
}

void LedgerCalls::on_reply(LedgerReply reply, Micros now, Actions& actions) {
  const auto found = pending_.find(reply.id);
  if (found == pending_.end()) {
    return;
  }
  count_refusal(reply.reply, now);
  const Continuation done = std::move(found->second.done);
  pending_bytes_ -= found->second.bytes;
  pending_.erase(found);
  done(std::move(reply.reply), now, actions);
}

void LedgerCalls::count_refusal(const ledger::Reply& reply, Micros now) {
  if (reply.status != ledger::Status::kFailed) {
    return;
  }
  ++refusals_;
  if (now - refusals_logged_at_ >= limits_.log_every_us) {
    log::error("the ledger refused {} operations; the last one: {}", refusals_, reply.message);
    refusals_ = 0;
    refusals_logged_at_ = now;
  }
}

}  // namespace tessera::coordinator
