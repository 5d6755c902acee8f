#include "coordinator/core/query_desk.hpp"

#include <algorithm>

#include "common/check.hpp"
#include "coordinator/core/replies.hpp"

namespace tessera::coordinator {

void QueryDesk::on_request(const std::string& peer, const std::string& tenant,
                           protocol::EmbedRequest request, std::uint32_t retry_after_ms, Micros now,
                           Actions& actions) {
  if (auto valid = protocol::validate(request.items); !valid) {
    return reply_error(peer, request.request_id, valid.error(), actions);
  }
  auto resolved = resolve(request.spec, models_);
  if (!resolved) {
    return reply_error(peer, request.request_id, resolved.error(), actions);
  }
  const std::size_t items = request.items.sizes.size();
  if (auto fits = check_answer_fits(*resolved, items); !fits) {
    return reply_error(peer, request.request_id, fits.error(), actions);
  }
  // What its texts take with the template before each.
  const std::size_t bytes = request.items.payload.size() + items * resolved->prefix.size();
  const bool full = items_ + items > limits_.items_max || bytes_ + bytes > limits_.bytes_max ||
                    open_by_client_[peer] >= limits_.client_requests_max;
  if (full && open_by_client_[peer] == 0) {
    open_by_client_.erase(peer);
  }
  if (full) {
    return reply_error(peer, request.request_id,
                       {ErrorCode::kResourceExhausted, "too many requests are waiting"}, actions,
                       retry_after_ms);
  }
  const Micros wanted = std::int64_t{request.deadline_ms} * 1000;
  const Micros patience =
      wanted == 0 ? limits_.default_deadline_us : std::min(wanted, limits_.deadline_us_max);
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
                       .stream = {.tenant = tenant, .job = {}},
                       .weight = 1,
                       .items = std::move(request.items)}};
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

bool QueryDesk::on_finished(FinishedUnit& finished, Actions& actions) {
  const auto found = units_.find(finished.id);
  if (found == units_.end()) {
    return false;
  }
  const QueryId id = found->second;
  const Query& query = queries_.at(id);
  actions.push_back(
      SendClient{query.peer, protocol::EmbedReply{.request_id = query.request_id,
                                                  .results = std::move(finished.results)}});
  forget(id);
  return true;
}

void QueryDesk::on_client_gone(const std::string& peer) {
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
    flow_.abandon(queries_.at(id).unit);
    forget(id);
  }
}

void QueryDesk::tick(Micros now, Actions& actions) {
  std::vector<QueryId> late;
  for (const auto& [id, query] : queries_) {
    if (now >= query.deadline) {
      late.push_back(id);
    }
  }
  for (const QueryId id : late) {
    const Query& query = queries_.at(id);
    if (query.unit == 0) {
      reply_error(query.peer, query.request_id,
                  {ErrorCode::kUnavailable, "no worker serves this model yet"}, actions, 1000);
    } else {
      reply_error(query.peer, query.request_id,
                  {ErrorCode::kDeadlineExceeded, "the request's deadline has passed"}, actions);
      flow_.abandon(query.unit);
    }
    forget(id);
  }
}

}  // namespace tessera::coordinator
