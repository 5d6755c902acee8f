#include "coordinator/core/scheduling/dispatcher.hpp"

#include <algorithm>
#include <cstring>

#include "common/check.hpp"
#include "common/log.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::uint32_t kDeathsMax = 3;
constexpr std::size_t kLossesMax = 12;  // Of connections and workers together.
constexpr double kLateFactor = 10;
constexpr std::size_t kShownDigits = 16;    // Of a fingerprint, as status shows it.
constexpr double kExpectedMaxS = 3600;      // Whatever a worker says that its batches cost.
constexpr std::uint32_t kMetricsMs = 1000;  // Between two reports of a worker.
constexpr std::size_t kTracesMax = 16;      // Named with a batch.

// NaN and infinity have all exponent bits set.
bool all_finite(std::span<const std::uint16_t> values) {
  unsigned special = 0;
  for (const std::uint16_t value : values) {
    special |= static_cast<unsigned>((value & 0x7C00U) == 0x7C00U);
  }
  return special == 0;
}

// The requests that the batch has sequences of; a batch of thousands names the first.
std::vector<protocol::RequestTrace> traces_of(std::span<Flight* const> flights) {
  std::vector<const protocol::RequestTrace*> seen;
  std::vector<protocol::RequestTrace> traces;
  for (const Flight* flight : flights) {
    const protocol::RequestTrace* trace = flight->trace.get();
    if (trace != nullptr && traces.size() < kTracesMax && !std::ranges::count(seen, trace)) {
      seen.push_back(trace);
      traces.push_back(*trace);
    }
  }
  return traces;
}

}  // namespace

Dispatcher::Dispatcher(std::span<const ServedModel> models, std::uint64_t epoch,
                       const DispatcherOptions& options)
    : models_(models), epoch_(epoch), options_(options), registry_(options.registry) {
  for (std::size_t i = 0; i < models.size(); ++i) {
    states_.push_back({.identity = {}, .scheduler = Scheduler(options.scheduler)});
  }
}

void Dispatcher::pin_fingerprint(ModelId model, const std::string& fingerprint,
                                 const std::string& owner) {
  ModelState& state = states_[model];
  if (state.identity.fingerprint().empty()) {
    state.fingerprint_owner = owner;
  }
  state.identity.pin(fingerprint);
}

std::uint32_t Dispatcher::seqlen_limit(ModelId model) const {
  const std::uint32_t served = states_[model].longest_served;
  return served == 0 ? models_[model].max_seqlen : std::min(served, models_[model].max_seqlen);
}

void Dispatcher::enqueue(Flight* flight, Micros now) {
  states_[flight->model].scheduler.add(flight, now);
}

void Dispatcher::withdraw(Flight* flight) { states_[flight->model].scheduler.remove(flight); }

void Dispatcher::make_interactive(Flight* flight, const StreamKey& stream) {
  states_[flight->model].scheduler.make_interactive(flight, stream);
}

void Dispatcher::on_message(const std::string& peer, protocol::Message message, Micros now,
                            Actions& actions) {
  if (auto* hello = std::get_if<protocol::WorkerHello>(&message)) {
    on_hello(peer, std::move(*hello), now, actions);
    return;
  }
  Worker* worker = registry_.find(peer);
  if (worker == nullptr) {
    // From before a restart or a declared death. Silence makes it register again.
    return;
  }
  registry_.heard(peer, now);
  if (auto* result = std::get_if<protocol::BatchResult>(&message)) {
    on_result(peer, std::move(*result), now, actions);
  } else if (auto* metrics = std::get_if<protocol::WorkerMetrics>(&message)) {
    registry_.on_metrics(*worker, std::move(*metrics));
  } else if (const auto* ping = std::get_if<protocol::Ping>(&message)) {
    actions.push_back(SendWorker{peer, protocol::Pong{ping->nonce}});
  } else if (const auto* goodbye = std::get_if<protocol::WorkerGoodbye>(&message)) {
    log::info("worker {} leaves: {}", worker->hello.name, goodbye->reason.substr(0, 200));
    worker->leaving = true;
    if (worker->batches.empty()) {
      registry_.remove(peer);
    }
  } else if (!std::holds_alternative<protocol::Pong>(message)) {
    log::warn("{} from worker {} was ignored", protocol::name_of(message), worker->hello.name);
  }
}

void Dispatcher::on_bad_message(const std::string& peer, const Error& error, Micros now,
                                Actions& actions) {
  log::warn("a worker's message was refused: {}", error.message);
  actions.push_back(
      SendWorker{peer, protocol::ErrorReply{.code = error.code, .message = error.message}});
  lose_worker(peer, Loss::kWorker, "it sent a malformed message", now);
}

void Dispatcher::on_hello(const std::string& peer, protocol::WorkerHello hello, Micros now,
                          Actions& actions) {
  const auto refuse = [&](ErrorCode code, const std::string& why) {
    log::warn("worker {} is refused: {}", hello.name.substr(0, protocol::kNameBytesMax), why);
    refusals_.record(hello, why, now);
    actions.push_back(SendWorker{peer, protocol::ErrorReply{.code = code, .message = why}});
  };
  const protocol::WorkerWelcome welcome{
      .epoch = epoch_,
      .heartbeat_ms = static_cast<std::uint32_t>(options_.registry.heartbeat_us / 1000),
      .metrics_ms = kMetricsMs,
      .ledger_id = options_.ledger_id};
  if (registry_.find(peer) != nullptr) {
    registry_.heard(peer, now);
    actions.push_back(SendWorker{peer, welcome});
    return;
  }
  const auto model = std::ranges::find(models_, hello.model, &ServedModel::name);
  if (model == models_.end()) {
    refuse(ErrorCode::kNotFound,
           "no model \"" + hello.model.substr(0, protocol::kNameBytesMax) + "\" is served here");
    return;
  }
  if (auto checked = WorkerRegistry::check(hello, *model); !checked) {
    refuse(checked.error().code, checked.error().message);
    return;
  }
  hello.name.resize(std::min(hello.name.size(), protocol::kNameBytesMax));
  hello.device.resize(std::min(hello.device.size(), protocol::kNameBytesMax));
  hello.device_kind.resize(std::min(hello.device_kind.size(), protocol::kNameBytesMax));
  hello.number_format.resize(std::min(hello.number_format.size(), protocol::kNameBytesMax));
  const auto id = static_cast<ModelId>(model - models_.begin());
  ModelState& state = states_[id];
  if (const auto why = state.identity.refusal(hello)) {
    const std::string advice =
        " (it has " + own_fingerprint(hello).substr(0, kShownDigits) + ", " +
        state.fingerprint_owner + " has " + state.identity.fingerprint().substr(0, kShownDigits) +
        "): vectors of two models are not mixed. Give it the same folder and --dtype, or end what "
        "has the other one and restart the coordinator";
    refuse(ErrorCode::kConflict, is_former_worker(hello) ? *why : *why + advice);
    return;
  }
  welcome_back(hello.process, now);
  pin_fingerprint(id, own_fingerprint(hello), "worker " + hello.name);
  state.identity.adopt(hello);
  state.longest_served =
      std::max(state.longest_served, std::min(hello.max_seqlen, hello.max_batch_tokens));
  log::info("worker {} ({}) serves {}, {} tokens a batch", hello.name, hello.device, hello.model,
            hello.max_batch_tokens);
  registry_.add(peer, std::move(hello), id, now);
  leave_former_fingerprints();
  actions.push_back(SendWorker{peer, welcome});
}

// The process lives, whatever became of its connections; those it has given up.
void Dispatcher::welcome_back(std::uint64_t process, Micros now) {
  if (process == 0) {
    return;
  }
  if (const auto lost = presumed_dead_.find(process); lost != presumed_dead_.end()) {
    lost->second->survived = true;
    presumed_dead_.erase(lost);
  }
  if (const Worker* before = registry_.find_process(process); before != nullptr) {
    lose_worker(std::string(before->peer), Loss::kReplaced, "it has a fresh connection", now);
  }
}

Result<void> Dispatcher::check_result(const BatchInFlight& batch,
                                      const protocol::BatchResult& result) const {
  const std::size_t rows = batch.flights.size();
  const std::size_t row_bytes = std::size_t{models_[batch.model].hidden_size} * 2;
  if (result.codes.size() != rows || result.payload.size() != rows * row_bytes) {
    return Error{ErrorCode::kInvalidArgument, "the result's size is not that of its batch: " +
                                                  std::to_string(rows) + " sequences"};
  }
  return {};
}

void Dispatcher::on_result(const std::string& peer, protocol::BatchResult result, Micros now,
                           Actions& actions) {
  const auto found = batches_.find(result.batch_id);
  if (result.epoch != epoch_ || found == batches_.end() || found->second.worker != peer ||
      found->second.attempt != result.attempt) {
    return;  // Late: the batch has been given to another, or belongs to another term.
  }
  if (auto checked = check_result(found->second, result); !checked) {
    on_bad_message(peer, checked.error(), now, actions);
    return;
  }
  const BatchInFlight batch = std::move(found->second);
  batches_.erase(found);
  Worker* worker = registry_.find(peer);
  CHECK(worker != nullptr);
  std::erase(worker->batches, result.batch_id);
  const bool overtook = worker->express_batch == result.batch_id;
  worker->express_batch = overtook ? 0 : worker->express_batch;
  worker->exclusive = false;
  ++worker->batches_done;
  worker->tokens_done += batch.tokens;
  tokens_done_ += batch.tokens;
  if (result.compute_us > 0 && !overtook) {  // It also waited for what it overtook.
    worker->cost_correction.on_batch(batch.stated_s, static_cast<double>(result.compute_us) / 1e6);
  }
  metrics_.express_batches += overtook ? 1 : 0;
  count_batch(batch, *worker, result.compute_us, now);
  end_batch(batch, result);
  if (worker->leaving && worker->batches.empty()) {
    registry_.remove(peer);
  }
}

void Dispatcher::count_batch(const BatchInFlight& batch, const Worker& worker,
                             std::uint64_t compute_us, Micros now) {
  ++metrics_.batches;
  const auto tokens = static_cast<double>(batch.tokens);
  observe(metrics_.fill, tokens / worker.hello.max_batch_tokens);
  observe(metrics_.queue, seconds_of(batch.queued_us));
  observe(metrics_.compute, static_cast<double>(compute_us) / 1e6);
  observe(metrics_.total, seconds_of(batch.queued_us + now - batch.sent_at));
  for (Flight* flight : batch.flights) {
    flight->compute_us =
        static_cast<Micros>(static_cast<double>(compute_us) * flight->length() / tokens);
  }
}

void Dispatcher::end_batch(const BatchInFlight& batch, const protocol::BatchResult& result) {
  const std::size_t width = models_[batch.model].hidden_size;
  for (std::size_t i = 0; i < batch.flights.size(); ++i) {
    Flight* flight = batch.flights[i];
    auto code = static_cast<ErrorCode>(result.codes[i]);
    auto embedding = std::make_shared<Embedding>();
    if (code == ErrorCode::kOk) {
      embedding->tokens = flight->length();
      embedding->tokens_cut = flight->tokens_cut;
      embedding->values.resize(width);
      std::memcpy(embedding->values.data(), result.payload.data() + i * width * 2, width * 2);
      if (!all_finite(embedding->values)) {
        code = ErrorCode::kNotFinite;
      }
    }
    if (code == ErrorCode::kOk) {
      ended_.push_back({.flight = flight, .embedding = std::move(embedding), .error = {}});
    } else if (code == ErrorCode::kNotFinite) {
      ended_.push_back({.flight = flight,
                        .embedding = nullptr,
                        .error = {code, "the model gave NaN or infinity for this item"}});
    } else {
      ended_.push_back({.flight = flight,
                        .embedding = nullptr,
                        .error = {ErrorCode::kInternal, "the worker could not run this item"}});
    }
  }
}

void Dispatcher::on_gone(const std::string& peer, Micros now) {
  lose_worker(peer, Loss::kConnection, "its connection is gone", now);
}

void Dispatcher::lose_worker(const std::string& peer, Loss loss, std::string_view why, Micros now) {
  Worker* worker = registry_.find(peer);
  if (worker == nullptr) {
    return;
  }
  log::warn("worker {} is lost with {} batches: {}", worker->hello.name, worker->batches.size(),
            why);
  ++metrics_.workers_lost;
  metrics_.batches_lost += worker->batches.size();
  const std::shared_ptr<const WorkerLoss> record = record_loss(*worker, loss);
  for (const std::uint64_t id : worker->batches) {
    const auto found = batches_.find(id);
    CHECK(found != batches_.end());
    const std::vector<Flight*> flights = std::move(found->second.flights);
    batches_.erase(found);
    for (Flight* flight : flights) {
      lose_flight(flight, record, now);
    }
  }
  registry_.remove(peer);
}

std::shared_ptr<const WorkerLoss> Dispatcher::record_loss(const Worker& worker, Loss loss) {
  auto record = std::make_shared<WorkerLoss>();
  record->survived = loss == Loss::kReplaced;
  if (loss == Loss::kConnection && worker.hello.process != 0 && !worker.batches.empty()) {
    std::erase_if(presumed_dead_, [](const auto& entry) { return entry.second.use_count() == 1; });
    presumed_dead_[worker.hello.process] = record;
  }
  return record;
}

void Dispatcher::lose_flight(Flight* flight, const std::shared_ptr<const WorkerLoss>& loss,
                             Micros now) {
  flight->losses.push_back(loss);
  flight->deaths = static_cast<std::uint32_t>(
      std::ranges::count_if(flight->losses, [](const auto& l) { return !l->survived; }));
  if (flight->deaths < kDeathsMax && flight->losses.size() < kLossesMax) {
    states_[flight->model].scheduler.add_again(flight, now);
    ++metrics_.items_retried;
    return;
  }
  const char* why = flight->deaths >= kDeathsMax
                        ? "three workers died while computing this item"
                        : "twelve connections to workers broke while they computed this item";
  ended_.push_back({.flight = flight, .embedding = nullptr, .error = {ErrorCode::kPoison, why}});
}

void Dispatcher::tick(Micros now, Actions& actions) {
  const WorkerRegistry::Due due = registry_.tick(now);
  for (const std::string& peer : due.to_ping) {
    actions.push_back(SendWorker{peer, protocol::Ping{}});
  }
  for (const std::string& peer : due.dead) {
    lose_worker(peer, Loss::kConnection, "it has been silent", now);
  }
  std::vector<std::string> late;
  for (const auto& [id, batch] : batches_) {
    if (now >= batch.give_up_at) {
      late.push_back(batch.worker);
    }
  }
  for (const std::string& peer : late) {
    lose_worker(peer, Loss::kWorker, "a batch takes far too long", now);
  }
  give_up_unservable(now);
  leave_former_fingerprints();
}

void Dispatcher::leave_former_fingerprints() {
  for (ModelId model = 0; model < states_.size(); ++model) {
    const bool former = std::ranges::any_of(registry_.all(), [&](const auto& entry) {
      return entry.second.model == model && is_former_worker(entry.second.hello);
    });
    if (!former) {
      states_[model].identity.leave_former();
    }
  }
}

void Dispatcher::give_up_unservable(Micros now) {
  for (ModelId model = 0; model < states_.size(); ++model) {
    const std::uint32_t longest = registry_.max_seqlen(model);
    if (longest == 0 || longest >= states_[model].longest_served) {
      continue;
    }
    for (Flight* flight :
         states_[model].scheduler.take_unservable(longest, now - options_.unservable_us)) {
      ended_.push_back(
          {.flight = flight,
           .embedding = nullptr,
           .error = {ErrorCode::kUnavailable, "no worker that is here takes " +
                                                  std::to_string(flight->length()) + " tokens"}});
    }
  }
}

void Dispatcher::dispatch(Micros now, Actions& actions) {
  for (ModelId model = 0; model < states_.size(); ++model) {
    fill_slots(model, Workers::kIdle, now, actions);
    overtake(model, now, actions);
    fill_slots(model, Workers::kAll, now, actions);
  }
}

void Dispatcher::fill_slots(ModelId model, Workers which, Micros now, Actions& actions) {
  ModelState& state = states_[model];
  std::vector<const Worker*> skip;
  while (state.scheduler.waiting_items() > 0) {
    Worker* worker = registry_.next_free(model, skip);
    if (worker == nullptr || (which == Workers::kIdle && !worker->batches.empty())) {
      return;
    }
    std::vector<Flight*> flights = state.scheduler.pick(registry_.capacity(*worker), now);
    if (flights.empty()) {
      skip.push_back(worker);  // Nothing that waits suits it.
      continue;
    }
    send_batch(*worker, std::move(flights), Turn::kOrdinary, now, actions);
  }
}

// Queries that found no idle worker.
void Dispatcher::overtake(ModelId model, Micros now, Actions& actions) {
  Scheduler& scheduler = states_[model].scheduler;
  while (scheduler.has_queries()) {
    Worker* worker = registry_.next_express(model);
    if (worker == nullptr) {
      return;
    }
    std::vector<Flight*> flights = scheduler.pick_express(registry_.capacity(*worker), now);
    if (flights.empty()) {
      return;  // Too long for it.
    }
    send_batch(*worker, std::move(flights), Turn::kExpress, now, actions);
  }
}

void Dispatcher::send_batch(Worker& worker, std::vector<Flight*> flights, Turn turn, Micros now,
                            Actions& actions) {
  protocol::Batch message{.epoch = epoch_,
                          .batch_id = next_batch_++,
                          .attempt = 1,
                          .lengths = {},
                          .payload = {},
                          .express = turn == Turn::kExpress};
  std::uint64_t tokens = 0;
  double squares = 0;
  Micros queued_us = 0;
  for (Flight* flight : flights) {
    flight->queued_us += now - flight->waiting_since;
    queued_us = std::max(queued_us, flight->queued_us);
    message.attempt =
        std::max(message.attempt, static_cast<std::uint32_t>(flight->losses.size()) + 1);
    message.lengths.push_back(flight->length());
    tokens += flight->length();
    squares += static_cast<double>(flight->length()) * flight->length();
  }
  message.traces = traces_of(flights);
  message.payload.resize(tokens * sizeof(std::int32_t));
  std::byte* out = message.payload.data();
  for (const Flight* flight : flights) {
    std::memcpy(out, flight->ids.data(), flight->ids.size() * sizeof(std::int32_t));
    out += flight->ids.size() * sizeof(std::int32_t);
  }
  const double expected_s = std::min(
      kExpectedMaxS, registry_.capacity(worker).cost.seconds(static_cast<double>(tokens), squares));
  worker.exclusive = Scheduler::runs_alone(*flights.front());
  worker.batches.push_back(message.batch_id);
  worker.express_batch = message.express ? message.batch_id : worker.express_batch;
  batches_[message.batch_id] = {.worker = worker.peer,
                                .model = worker.model,
                                .attempt = message.attempt,
                                .tokens = tokens,
                                .stated_s = expected_s / worker.cost_correction.factor(),
                                .give_up_at = now + options_.batch_us_max +
                                              static_cast<Micros>(kLateFactor * expected_s * 1e6),
                                .sent_at = now,
                                .queued_us = queued_us,
                                .flights = std::move(flights)};
  actions.push_back(SendWorker{worker.peer, std::move(message)});
}

void Dispatcher::stop_bulk() {
  for (ModelState& state : states_) {
    state.scheduler.stop_bulk();
  }
}

std::vector<Dispatcher::Ended> Dispatcher::take_ended() { return std::exchange(ended_, {}); }

std::uint64_t Dispatcher::waiting_tokens() const {
  std::uint64_t tokens = 0;
  for (const ModelState& state : states_) {
    tokens += state.scheduler.waiting_tokens();
  }
  return tokens;
}

double Dispatcher::drain_rate() const {
  double rate = 0;
  for (const auto& [peer, worker] : registry_.all()) {
    rate += worker.drain_rate;
  }
  return rate;
}

}  // namespace tessera::coordinator
