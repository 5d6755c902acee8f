#include "coordinator/core/queries/query_desk.hpp"

#include <algorithm>

#include "common/check.hpp"
#include "common/log.hpp"
#include "coordinator/core/items/resolved_spec.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::uint32_t kWeightMax = 100;
constexpr Micros kQuotaSweepUs = 60'000'000;

// Requests of a tenant share by weight like its jobs, so those of one weight are one stream.
JobId stream_name(std::uint32_t weight) {
  return weight == 1 ? JobId() : "weight " + std::to_string(weight);
}

}  // namespace

Result<ResolvedSpec> QueryDesk::check(const protocol::EmbedRequest& request) const {
  if (auto valid = protocol::validate(request.items); !valid) {
    return valid.error();
  }
  if (request.weight < 1 || request.weight > kWeightMax) {
    return Error{ErrorCode::kInvalidArgument, "a weight is 1 to 100"};
  }
  if (request.tenant.size() > protocol::kNameBytesMax ||
      request.trace.id.size() > protocol::kNameBytesMax ||
      request.trace.traceparent.size() > protocol::kNameBytesMax) {
    return Error{ErrorCode::kInvalidArgument,
                 "a tenant, a request's name and a traceparent have at most 256 bytes"};
  }
  auto resolved = resolve(request.spec, models_);
  if (!resolved) {
    return resolved;
  }
  if (auto fits = check_answer_fits(*resolved, request.items.sizes.size()); !fits) {
    return fits.error();
  }
  return resolved;
}

bool QueryDesk::is_full(const std::string& peer, std::size_t items, std::size_t bytes) const {
  const auto open = open_by_client_.find(peer);
  return items_ + items > limits_.items_max || bytes_ + bytes > limits_.bytes_max ||
         (open != open_by_client_.end() && open->second >= limits_.client_requests_max);
}

void QueryDesk::refuse(const std::string& peer, const protocol::EmbedRequest& request, Error error,
                       Actions& actions, std::uint32_t retry_after_ms, protocol::Quota quota) {
  ++metrics_.errors[index_of(error.code)];
  log::about(log::Level::kDebug, request.trace, "request refused: {}", error.message);
  actions.push_back(SendClient{peer, protocol::ErrorReply{.request_id = request.request_id,
                                                          .code = error.code,
                                                          .message = std::move(error.message),
                                                          .retry_after_ms = retry_after_ms,
                                                          .quota = quota}});
}

void QueryDesk::on_request(const std::string& peer, const std::string& tenant,
                           protocol::EmbedRequest request, std::uint32_t retry_after_ms, Micros now,
                           Actions& actions) {
  ++metrics_.requests[index_of(request.lane)];
  auto resolved = check(request);
  if (!resolved) {
    return refuse(peer, request, resolved.error(), actions);
  }
  const std::size_t items = request.items.sizes.size();
  // What its texts take with the template before each.
  const std::size_t bytes = request.items.payload.size() + items * resolved->prefix.size();
  if (is_full(peer, items, bytes)) {
    return refuse(peer, request, {ErrorCode::kResourceExhausted, "too many requests are waiting"},
                  actions, retry_after_ms);
  }
  const std::string& payer = request.tenant.empty() ? tenant : request.tenant;
  const std::uint64_t estimate = estimate_tokens(request.items);
  if (request.tokens_per_minute > 0) {
    const auto admission = quotas_.admit(payer, request.tokens_per_minute, estimate, now);
    if (!admission.admitted) {
      ++metrics_.quota_refusals;
      return refuse(peer, request,
                    {ErrorCode::kResourceExhausted, "the quota of tokens per minute is used up"},
                    actions, admission.retry_after_ms, admission.quota);
    }
  }
  const Micros wanted = std::int64_t{request.deadline_ms} * 1000;
  const Micros patience =
      wanted == 0 ? limits_.default_deadline_us : std::min(wanted, limits_.deadline_us_max);
  const bool is_traced = request.trace != protocol::RequestTrace{};
  const QueryId id = next_query_++;
  Query& query = queries_[id];
  query = {.peer = peer,
           .request_id = request.request_id,
           .deadline = now + patience,
           .items = static_cast<std::uint32_t>(items),
           .bytes = bytes,
           .unit = 0,
           .waiting = {.spec = std::make_shared<const ResolvedSpec>(std::move(*resolved)),
                       .lane = request.lane,
                       .stream = {.tenant = payer, .job = stream_name(request.weight)},
                       .weight = static_cast<double>(request.weight),
                       .items = std::move(request.items),
                       .no_cache = request.no_cache,
                       .no_store = request.no_store},
           .lane = request.lane,
           .arrived_at = now,
           .trace = is_traced
                        ? std::make_shared<const protocol::RequestTrace>(std::move(request.trace))
                        : nullptr,
           .tenant = payer,
           .quota = request.tokens_per_minute,
           .tokens_estimate = estimate};
  query.waiting.trace = query.trace;
  items_ += items;
  bytes_ += bytes;
  ++open_by_client_[peer];
  if (flow_.can_start(query.waiting.spec->model)) {
    start(id, query, now, actions);
  } else {
    not_started_[query.waiting.spec->model].insert(id);
  }
}

void QueryDesk::start(QueryId id, Query& query, Micros now, Actions& actions) {
  query.unit = flow_.start(std::move(query.waiting), now, actions);
  units_.emplace(query.unit, id);
}

void QueryDesk::pump(Micros now, Actions& actions) {
  for (auto it = not_started_.begin(); it != not_started_.end();) {
    if (!flow_.can_start(it->first)) {
      ++it;
      continue;
    }
    for (const QueryId id : it->second) {
      start(id, queries_.at(id), now, actions);
    }
    it = not_started_.erase(it);
  }
}

void QueryDesk::forget(QueryId id) {
  const auto found = queries_.find(id);
  CHECK(found != queries_.end());
  const Query& query = found->second;
  items_ -= query.items;
  bytes_ -= query.bytes;
  const auto client = open_by_client_.find(query.peer);
  if (--client->second == 0) {
    open_by_client_.erase(client);
  }
  if (query.unit == 0) {
    not_started_[query.waiting.spec->model].erase(id);
  }
  units_.erase(query.unit);
  queries_.erase(found);
}

protocol::Quota QueryDesk::settle(const Query& query, std::uint64_t tokens, Micros now) {
  return query.quota == 0 ? protocol::Quota{}
                          : quotas_.settle(query.tenant, query.tokens_estimate, tokens, now);
}

bool QueryDesk::on_finished(FinishedUnit& finished, Micros now, Actions& actions) {
  const auto found = units_.find(finished.id);
  if (found == units_.end()) {
    return false;
  }
  const QueryId id = found->second;
  const Query& query = queries_.at(id);
  ++metrics_.answered[index_of(query.lane)];
  metrics_.seconds.count(query.lane, now - query.arrived_at);
  if (query.trace != nullptr) {
    log::about(log::Level::kDebug, *query.trace, "{} items, {} tokens answered after {} ms",
               query.items, finished.tokens, (now - query.arrived_at) / 1000);
  }
  actions.push_back(
      SendClient{query.peer, protocol::EmbedReply{.request_id = query.request_id,
                                                  .results = std::move(finished.results),
                                                  .quota = settle(query, finished.tokens, now)}});
  forget(id);
  return true;
}

void QueryDesk::on_client_gone(const std::string& peer, Micros now) {
  if (!open_by_client_.contains(peer)) {
    return;
  }
  std::vector<QueryId> gone;
  for (const auto& [id, query] : queries_) {
    if (query.peer == peer) {
      gone.push_back(id);
    }
  }
  for (const QueryId id : gone) {
    const Query& query = queries_.at(id);
    flow_.abandon(query.unit);
    settle(query, 0, now);
    forget(id);
  }
}

void QueryDesk::end_with_error(QueryId id, Error error, std::uint32_t retry_after_ms, Micros now,
                               Actions& actions) {
  const Query& query = queries_.at(id);
  ++metrics_.errors[index_of(error.code)];
  if (query.trace != nullptr) {
    log::about(log::Level::kDebug, *query.trace, "request ended: {}", error.message);
  }
  actions.push_back(SendClient{query.peer, protocol::ErrorReply{.request_id = query.request_id,
                                                                .code = error.code,
                                                                .message = std::move(error.message),
                                                                .retry_after_ms = retry_after_ms}});
  flow_.abandon(query.unit);
  settle(query, 0, now);
  forget(id);
}

void QueryDesk::tick(Micros now, Actions& actions) {
  std::vector<QueryId> late;
  for (const auto& [id, query] : queries_) {
    if (now >= query.deadline) {
      late.push_back(id);
    }
  }
  for (const QueryId id : late) {
    if (queries_.at(id).unit == 0) {
      end_with_error(id, {ErrorCode::kUnavailable, "no worker serves this model yet"}, 1000, now,
                     actions);
    } else {
      end_with_error(id, {ErrorCode::kDeadlineExceeded, "the request's deadline has passed"}, 0,
                     now, actions);
    }
  }
  if (now - quotas_swept_at_ >= kQuotaSweepUs) {
    quotas_swept_at_ = now;
    quotas_.sweep(now);
  }
}

}  // namespace tessera::coordinator
