#include "coordinator/core/core.hpp"

#include <algorithm>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/wire/embed_batch.hpp"
#include "coordinator/core/core_metrics.hpp"
#include "coordinator/core/events/replies.hpp"
#include "coordinator/core/events/reply_batch.hpp"
#include "coordinator/core/scheduling/worker_metrics.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::size_t kListedMax = 500;  // Jobs and workers of one StatusReply.
constexpr std::size_t kClientsMax = 100'000;
constexpr Micros kClientForgottenUs = 3600LL * 1'000'000;
constexpr Micros kClientSweepUs = 60LL * 1'000'000;
constexpr std::uint32_t kRetryMsMin = 50;
constexpr std::uint32_t kRetryMsMax = 10'000;
constexpr std::uint32_t kRetryMsUnknown = 500;

LedgerInfo with_term(LedgerInfo ledger, std::uint64_t term) {
  ledger.term = term;
  return ledger;
}

DispatcherOptions with_ledger(DispatcherOptions options, const std::string& ledger_id) {
  options.ledger_id = ledger_id;
  return options;
}

// As many as a header takes beside what else is in it; more than that are still served.
std::vector<std::string> prompt_names(const ServedModel& model) {
  constexpr std::size_t kNamesMax = 256;
  std::vector<std::string> names;
  for (const auto& [name, prompt] : model.prompts) {
    if (names.size() < kNamesMax) {
      names.push_back(name);
    }
  }
  return names;
}

}  // namespace

Core::Core(CoreOptions options, const std::vector<ledger::StoredJob>& stored, Micros now,
           std::vector<ledger::StoredRecord> records)
    : options_(std::move(options)),
      started_at_(now),
      watch_(with_term(options_.ledger, options_.epoch)),
      dispatcher_(options_.models, options_.epoch,
                  with_ledger(options_.dispatcher, options_.ledger.id)),
      flow_(options_.models, dispatcher_, options_.cache_bytes),
      queries_(options_.models, flow_, options_.queries),
      jobs_(options_.models, dispatcher_, flow_, options_.jobs),
      records_(options_.records) {
  CHECK(!options_.models.empty());
  jobs_.restore(stored, now);
  records_.restore(std::move(records), now);
}

Actions Core::step(Event event, Micros now) {
  Actions actions;
  std::visit([&](auto& e) { on(e, now, actions); }, event);
  settle(now, actions);
  pack_replies(actions, [this](const std::string& peer) {
    const auto found = clients_.find(peer);
    return found != clients_.end() && found->second.takes_batches;
  });
  return actions;
}

void Core::settle(Micros now, Actions& actions) {
  flow_.collect(now, actions);
  queries_.pump(now, actions);
  bool more = true;
  while (more) {
    finish_units(now, actions);
    more = jobs_.pump(now, actions) > 0 && !jobs_.has_backlog();
  }
  finish_units(now, actions);
  dispatcher_.dispatch(now, actions);
  if (stopping_ && !stopped_ && queries_.open_requests() == 0 &&
      dispatcher_.batches_in_flight() == 0 && jobs_.ledger_operations() == 0 &&
      records_.ledger_operations() == 0) {
    stopped_ = true;
    actions.push_back(Stop{});
  }
}

void Core::finish_units(Micros now, Actions& actions) {
  for (FinishedUnit& finished : flow_.take_finished()) {
    CHECK(queries_.on_finished(finished, now, actions) || jobs_.on_finished(finished, actions));
  }
}

std::uint32_t Core::retry_after_ms() const {
  const double rate = dispatcher_.drain_rate();
  if (rate <= 0) {
    return kRetryMsUnknown;
  }
  // Half of what waits: by then there is room again.
  const double wait_ms = 500.0 * static_cast<double>(dispatcher_.waiting_tokens()) / rate;
  return static_cast<std::uint32_t>(std::clamp<double>(wait_ms, kRetryMsMin, kRetryMsMax));
}

void Core::on(FromClient& event, Micros now, Actions& actions) {
  Asked asked{.peer = event.peer, .tenant = {}, .now = now, .actions = actions};
  if (const auto known = clients_.find(event.peer); known != clients_.end()) {
    known->second.heard_at = now;
    asked.tenant = known->second.tenant;
  }
  std::visit([&](auto& message) { take(message, asked); }, event.message);
}

void Core::take(protocol::ClientHello& hello, const Asked& asked) {
  if (hello.tenant.size() > protocol::kNameBytesMax) {
    reply_error(asked.peer, 0, {ErrorCode::kInvalidArgument, "a tenant has at most 256 bytes"},
                asked.actions);
    return;
  }
  if (clients_.size() >= kClientsMax && !clients_.contains(asked.peer)) {
    reply_error(asked.peer, 0, {ErrorCode::kResourceExhausted, "too many clients"}, asked.actions);
    return;
  }
  (void)watch_.on_claim(LedgerWatch::Trust::kClient,
                        "client " + hello.client.substr(0, protocol::kNameBytesMax),
                        hello.ledger_id, hello.term_seen, asked.actions);
  Client& client = clients_[asked.peer];
  client.tenant = hello.tenant;
  client.heard_at = asked.now;
  asked.actions.push_back(
      SendClient{asked.peer, protocol::ServerHello{.server = "tessera-coordinator",
                                                   .epoch = options_.epoch,
                                                   .models = model_infos(),
                                                   .ledger_id = watch_.info().id}});
}

void Core::take(protocol::Ping& ping, const Asked& asked) {
  asked.actions.push_back(SendClient{asked.peer, protocol::Pong{ping.nonce}});
}

void Core::take(protocol::Pong& /*pong*/, const Asked& /*asked*/) {}

void Core::take(protocol::MetricsRequest& request, const Asked& asked) {
  protocol::MetricsReply reply{.request_id = request.request_id, .families = {}};
  reply.families = core_metrics({.models = options_.models,
                                 .epoch = options_.epoch,
                                 .uptime_us = asked.now - started_at_,
                                 .clients = clients_.size(),
                                 .dispatcher = dispatcher_,
                                 .flow = flow_,
                                 .queries = queries_,
                                 .jobs = jobs_,
                                 .records = records_,
                                 .plumbing = plumbing_},
                                asked.now);
  asked.actions.push_back(SendClient{asked.peer, std::move(reply)});
}

void Core::take(protocol::StatusRequest& request, const Asked& asked) {
  protocol::StatusReply reply{.request_id = request.request_id,
                              .epoch = options_.epoch,
                              .uptime_s = static_cast<double>(asked.now - started_at_) / 1e6,
                              .jobs = {},
                              .workers = worker_statuses(),
                              .models = model_infos(),
                              .cache_hits = flow_.totals().hits,
                              .cache_joins = flow_.totals().joins,
                              .cache_misses = flow_.totals().misses,
                              .tokens_done = dispatcher_.tokens_done(),
                              .queued_tokens = dispatcher_.waiting_tokens(),
                              .ledger_id = watch_.info().id,
                              .ledger_warning = watch_.info().warning,
                              .refused_workers = dispatcher_.refusals(asked.now),
                              .ledger_away_s = watch_.away_s(asked.now)};
  if (request.job_id.empty()) {
    reply.jobs = jobs_.table().progress(kListedMax);
  } else if (const Job* job = jobs_.table().find(request.job_id)) {
    reply.jobs.push_back(job->progress());
  } else {
    reply_error(asked.peer, request.request_id, {ErrorCode::kNotFound, "no job has this id"},
                asked.actions);
    return;
  }
  asked.actions.push_back(SendClient{asked.peer, std::move(reply)});
}

void Core::take(protocol::RecordPut& put, const Asked& asked) {
  records_.on_put(asked.peer, std::move(put), asked.now, asked.actions);
}

void Core::take(protocol::RecordQuery& query, const Asked& asked) {
  records_.on_query(asked.peer, query, asked.now, asked.actions);
}

void Core::take(protocol::RecordClaim& claim, const Asked& asked) {
  records_.on_claim(asked.peer, claim, asked.now, asked.actions);
}

void Core::take(protocol::RecordDelete& deletion, const Asked& asked) {
  records_.on_delete(asked.peer, deletion, asked.now, asked.actions);
}

void Core::take(protocol::EmbedRequest& embed, const Asked& asked) {
  std::vector<protocol::EmbedRequest> requests;
  requests.push_back(std::move(embed));
  on_requests(std::move(requests), asked);
}

void Core::take(protocol::EmbedRequests& batch, const Asked& asked) {
  auto requests = protocol::unpack(std::move(batch));
  if (!requests) {
    return reply_error(asked.peer, 0, requests.error(), asked.actions);
  }
  if (const auto known = clients_.find(asked.peer); known != clients_.end()) {
    known->second.takes_batches = true;
  }
  on_requests(std::move(*requests), asked);
}

void Core::take(protocol::OpenJob& open, const Asked& asked) {
  jobs_.on_open(asked.peer, open.tenant.empty() ? asked.tenant : open.tenant, open, asked.actions);
}

void Core::take(protocol::SubmitChunk& chunk, const Asked& asked) {
  jobs_.on_chunk(asked.peer, std::move(chunk), retry_after_ms(), asked.actions);
}

void Core::take(protocol::ResultAck& ack, const Asked& asked) {
  jobs_.on_ack(asked.peer, ack, asked.actions);
}

void Core::take(protocol::LeaveJob& leave, const Asked& asked) {
  jobs_.on_leave(asked.peer, leave);
}

void Core::take(protocol::CloseJob& close, const Asked& asked) {
  jobs_.on_close(asked.peer, close, asked.actions);
}

void Core::take(protocol::CancelJob& cancel, const Asked& asked) {
  jobs_.on_cancel(asked.peer, cancel, asked.actions);
}

template <typename Other>
void Core::take(Other& other, const Asked& asked) {
  reply_error(asked.peer, 0,
              {ErrorCode::kInvalidArgument,
               std::string(protocol::name_of(protocol::Message(std::move(other)))) +
                   " is not a client's message"},
              asked.actions);
}

void Core::on_requests(std::vector<protocol::EmbedRequest> requests, const Asked& asked) {
  for (protocol::EmbedRequest& request : requests) {
    if (stopping_) {
      reply_error(asked.peer, request.request_id,
                  {ErrorCode::kUnavailable, "the coordinator is stopping"}, asked.actions);
    } else {
      queries_.on_request(asked.peer, asked.tenant, std::move(request), retry_after_ms(), asked.now,
                          asked.actions);
    }
  }
}

bool Core::hear_claim(const std::string& peer, const protocol::WorkerHello& hello,
                      Actions& actions) {
  if (hello.term_seen > kTermMax) {
    return true;  // The registry refuses it.
  }
  const std::string who = "worker " + hello.name.substr(0, protocol::kNameBytesMax);
  if (watch_.on_claim(LedgerWatch::Trust::kWorker, who, hello.ledger_id, hello.term_seen,
                      actions)) {
    return true;
  }
  const std::string why = "the worker knows term " + std::to_string(hello.term_seen) +
                          " of this ledger and this coordinator has term " +
                          std::to_string(options_.epoch) + ": the ledger is asked which holds";
  actions.push_back(
      SendWorker{peer, protocol::ErrorReply{.code = ErrorCode::kUnavailable, .message = why}});
  return false;
}

void Core::on(FromWorker& event, Micros now, Actions& actions) {
  const auto* hello = std::get_if<protocol::WorkerHello>(&event.message);
  if (hello == nullptr || hear_claim(event.peer, *hello, actions)) {
    dispatcher_.on_message(event.peer, std::move(event.message), now, actions);
  }
}

void Core::on(BadFromClient& event, Micros /*now*/, Actions& actions) {
  reply_bad_message(event, actions);
}

void Core::on(BadFromWorker& event, Micros now, Actions& actions) {
  dispatcher_.on_bad_message(event.peer, event.error, now, actions);
}

void Core::on(ClientGone& event, Micros now, Actions& /*actions*/) {
  queries_.on_client_gone(event.peer, now);
  jobs_.on_client_gone(event.peer);
  clients_.erase(event.peer);
}

void Core::on(WorkerGone& event, Micros now, Actions& /*actions*/) {
  dispatcher_.on_gone(event.peer, now);
}

void Core::on(LedgerReply& event, Micros now, Actions& actions) {
  plumbing_.count(event);
  if (watch_.on_reply(event, actions)) {
    return;
  }
  if (RecordDesk::is_own(event.id)) {
    records_.on_ledger_reply(std::move(event), now, actions);
  } else {
    jobs_.on_ledger_reply(std::move(event), now, actions);
  }
}

void Core::on(LedgerState& event, Micros now, Actions& /*actions*/) {
  watch_.on_state(event.up, now);
  log::info("the ledger's server is {}", event.up ? "there" : "not reachable");
  jobs_.on_ledger_state(event.up);
  records_.on_ledger_state(event.up);
  plumbing_.ledger_up = event.up;
}

void Core::on(CacheReply& event, Micros now, Actions& actions) {
  plumbing_.count(event);
  flow_.on_cache_reply(std::move(event), now, actions);
}

void Core::on(TokensReady& event, Micros now, Actions& /*actions*/) {
  plumbing_.count(event);
  flow_.on_tokens(std::move(event), now);
}

void Core::on(Tick& /*event*/, Micros now, Actions& actions) {
  watch_.tick(now, actions);
  dispatcher_.tick(now, actions);
  flow_.tick(now, actions);
  flow_.collect(now, actions);
  finish_units(now, actions);
  queries_.tick(now, actions);
  jobs_.tick(now, actions);
  if (now - clients_swept_at_ >= kClientSweepUs) {
    clients_swept_at_ = now;
    std::erase_if(clients_, [&](const auto& entry) {
      return now - entry.second.heard_at > kClientForgottenUs;
    });
  }
}

void Core::on(StopRequested& /*event*/, Micros /*now*/, Actions& /*actions*/) {
  stopping_ = true;
  jobs_.stop();
  dispatcher_.stop_bulk();
}

std::vector<protocol::ModelInfo> Core::model_infos() const {
  std::vector<protocol::ModelInfo> infos;
  for (ModelId id = 0; id < options_.models.size(); ++id) {
    const ServedModel& model = options_.models[id];
    infos.push_back({.name = model.name,
                     .fingerprint = dispatcher_.identity(id).fingerprint(),
                     .hidden_size = model.hidden_size,
                     .max_seqlen = dispatcher_.seqlen_limit(id),
                     .vocab_size = model.vocab_size,
                     .workers = dispatcher_.workers().count(id),
                     .prompt_names = prompt_names(model),
                     .tokenizer_hash = model.tokenizer_hash,
                     .former_fingerprint = dispatcher_.identity(id).former(),
                     .number_format = dispatcher_.workers().number_format(id)});
  }
  return infos;
}

std::vector<protocol::WorkerStatus> Core::worker_statuses() const {
  std::vector<protocol::WorkerStatus> statuses;
  for (const auto& [peer, worker] : dispatcher_.workers().all()) {
    if (statuses.size() < kListedMax) {
      statuses.push_back({.name = worker.hello.name,
                          .device = worker.hello.device,
                          .model = worker.hello.model,
                          .fingerprint = own_fingerprint(worker.hello),
                          .group_size = worker.hello.group_size,
                          .batches_in_flight = static_cast<std::uint32_t>(worker.batches.size()),
                          .batches_done = worker.batches_done,
                          .tokens_done = worker.tokens_done,
                          .tokens_per_second = worker.tokens_per_second,
                          .max_batch_tokens = worker.hello.max_batch_tokens,
                          .peak_tokens_per_second = peak_tokens_per_second(worker),
                          .busy_share = worker.metrics ? worker.metrics->busy_share : 0,
                          .batch_fill = worker.metrics ? mean(worker.metrics->batch_fill) : 0,
                          .temperature_c = worker.metrics ? worker.metrics->temperature_c : 0,
                          .device_kind = worker.hello.device_kind});
    }
  }
  return statuses;
}

std::string Core::metrics() const {
  const CacheCounts& totals = flow_.totals();
  return fmt::format(
      "clients {} workers {} units {} flights {} waiting_tokens {} batches {} tokens {} "
      "tokens_per_s {:.0f} hits {} joins {} misses {} cache_mb {} resident_mb {} owed_mb {} "
      "ledger_ops {}",
      clients_.size(), dispatcher_.workers().all().size(), flow_.units(), flow_.pending_items(),
      dispatcher_.waiting_tokens(), dispatcher_.batches_in_flight(), dispatcher_.tokens_done(),
      dispatcher_.drain_rate(), totals.hits, totals.joins, totals.misses,
      flow_.cache_bytes() >> 20U, jobs_.resident_bytes() >> 20U, jobs_.owed_bytes() >> 20U,
      jobs_.ledger_operations());
}

}  // namespace tessera::coordinator
