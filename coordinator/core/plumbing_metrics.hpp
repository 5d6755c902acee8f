#pragma once

#include <array>
#include <variant>

#include "coordinator/core/events/events.hpp"
#include "coordinator/core/scheduling/part_metrics.hpp"

namespace tessera::coordinator {

// What the plumbing measures and hands on with its events, since the core knows no clock.
struct PlumbingMetrics {
  static constexpr std::size_t kOperations = std::variant_size_v<ledger::Operation>;

  std::array<protocol::Histogram, kOperations> ledger;  // By kind.
  std::uint64_t ledger_refusals = 0;
  bool ledger_up = true;
  protocol::Histogram cache = make_histogram(seconds_bounds());  // Lookups in the second level.
  protocol::Histogram tokenize = make_histogram(seconds_bounds());

  PlumbingMetrics() { ledger.fill(make_histogram(seconds_bounds())); }
  void count(const LedgerReply& event) {
    observe(ledger.at(event.operation), seconds_of(event.took_us));
    ledger_refusals += event.reply.status == ledger::Status::kFailed ? 1 : 0;
  }
  void count(const CacheReply& event) { observe(cache, seconds_of(event.took_us)); }
  void count(const TokensReady& event) { observe(tokenize, seconds_of(event.busy_us)); }
};

}  // namespace tessera::coordinator
