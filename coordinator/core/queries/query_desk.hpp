#pragma once

#include <map>
#include <set>
#include <unordered_map>

#include "coordinator/core/events/events.hpp"
#include "coordinator/core/flow/item_flow.hpp"
#include "coordinator/core/queries/quota_book.hpp"

namespace tessera::coordinator {

struct QueryLimits {
  std::uint32_t items_max = 65'536;    // Of all requests that are not answered.
  std::size_t bytes_max = 128U << 20;  // Of their items, templates included.
  std::uint32_t client_requests_max = 1024;
  Micros default_deadline_us = 60'000'000;
  Micros deadline_us_max = 3600LL * 1'000'000;
};

// Embed requests: answered from memory, never journalled; whoever got no answer asks again. Each
// gets one EmbedReply or one ErrorReply, at its deadline at the latest.
class QueryDesk {
 public:
  QueryDesk(std::span<const ServedModel> models, ItemFlow& flow, const QueryLimits& limits)
      : models_(models), flow_(flow), limits_(limits) {}

  void on_request(const std::string& peer, const std::string& tenant,
                  protocol::EmbedRequest request, std::uint32_t retry_after_ms, Micros now,
                  Actions& actions);
  void on_client_gone(const std::string& peer, Micros now);
  // False when the unit is not of an embed request.
  bool on_finished(FinishedUnit& finished, Micros now, Actions& actions);
  void tick(Micros now, Actions& actions);
  // Starts requests that waited for the first worker of their model.
  void pump(Micros now, Actions& actions);

  std::size_t open_requests() const { return queries_.size(); }
  std::uint64_t open_items() const { return items_; }
  const QueryMetrics& metrics() const { return metrics_; }

 private:
  struct Query {
    std::string peer;
    std::uint64_t request_id = 0;
    Micros deadline = 0;
    std::uint32_t items = 0;
    std::size_t bytes = 0;
    UnitId unit = 0;  // 0 until it could start.
    Unit waiting;     // Until then.
    protocol::Lane lane = protocol::Lane::kInteractive;
    Micros arrived_at = 0;
    std::shared_ptr<const protocol::RequestTrace> trace;  // May be null.
    std::string tenant;
    std::uint64_t quota = 0;            // Tokens per minute; 0 = none.
    std::uint64_t tokens_estimate = 0;  // What is reserved of it.
  };
  using QueryId = std::uint64_t;

  // A request that can be taken in, or why not.
  Result<ResolvedSpec> check(const protocol::EmbedRequest& request) const;
  bool is_full(const std::string& peer, std::size_t items, std::size_t bytes) const;
  void refuse(const std::string& peer, const protocol::EmbedRequest& request, Error error,
              Actions& actions, std::uint32_t retry_after_ms = 0, protocol::Quota quota = {});
  void start(QueryId id, Query& query, Micros now, Actions& actions);
  // What the quota counts of a request that ends with so many tokens.
  protocol::Quota settle(const Query& query, std::uint64_t tokens, Micros now);
  void end_with_error(QueryId id, Error error, std::uint32_t retry_after_ms, Micros now,
                      Actions& actions);
  void forget(QueryId id);

  const std::span<const ServedModel> models_;
  ItemFlow& flow_;
  const QueryLimits limits_;
  std::map<QueryId, Query> queries_;
  std::unordered_map<UnitId, QueryId> units_;
  std::map<ModelId, std::set<QueryId>> not_started_;
  std::unordered_map<std::string, std::uint32_t> open_by_client_;
  QueryId next_query_ = 1;
  std::uint64_t items_ = 0;
  std::size_t bytes_ = 0;
  QuotaBook quotas_;
  Micros quotas_swept_at_ = 0;
  QueryMetrics metrics_;
};

}  // namespace tessera::coordinator
