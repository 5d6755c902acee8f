#include "worker/link/link.hpp"

#include <algorithm>
#include <random>

#include "common/log.hpp"
#include "common/net/receive.hpp"

namespace tessera::worker {
namespace {

constexpr int kPollMs = 100;
constexpr int kMissedHeartbeatsMax = 3;
constexpr std::chrono::milliseconds kPatienceMax{15'000};
// A coordinator that has lost its lead hears so from its ledger in far less tries.
constexpr int kStaleWelcomesMax = 10;

std::uint64_t random_number() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random() | 1;  // not 0
}

protocol::WorkerHello make_hello(const WorkerOptions& options, const EngineInfo& info, int slots) {
  const auto narrow = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
  return {.name = options.name,
          .device = info.device,
          .model = options.model_name.empty() ? info.model_name : options.model_name,
          .fingerprint = info.fingerprint,
          .tokenizer_hash = info.tokenizer_hash,
          .hidden_size = narrow(info.hidden_size),
          .vocab_size = narrow(info.vocab_size),
          .group_size = narrow(info.group_size),
          .max_batch_tokens = narrow(info.max_batch_tokens),
          .max_batch_sequences = narrow(info.max_sequences),
          .max_seqlen = narrow(info.max_seqlen),
          .preferred_seqlen_min = options.preferred_seqlen_min,
          .preferred_seqlen_max = options.preferred_seqlen_max,
          .slots = narrow(slots),
          .cost_s = info.cost.fixed_s,
          .cost_s_per_token = info.cost.per_token_s,
          .cost_s_per_token2 = info.cost.per_square_s,
          .process = random_number(),
          .former_fingerprint = info.former_fingerprint,
          .device_kind = info.device_kind,
          .number_format = info.number_format,
          .express_tokens = narrow(info.express_tokens)};
}

// A batch of the longest texts may honestly take minutes on a CPU: a device hangs when it takes
// several times what its own cost model says, and longer than the option.
double hang_after_s(const WorkerOptions& options, const EngineInfo& info) {
  constexpr double kSlowdownMax = 5;
  const auto tokens = static_cast<double>(info.max_batch_tokens);
  const double slowest_s = info.cost.seconds(tokens, tokens * static_cast<double>(info.max_seqlen));
  return std::max(options.batch_timeout_s, kSlowdownMax * slowest_s);
}

}  // namespace

Link::Link(const WorkerOptions& options, const EngineInfo& info, BatchRunner& runner,
           const net::WakeUp& results_ready)
    : options_(options),
      hello_(make_hello(options, info, runner.slots())),
      runner_(runner),
      results_ready_(results_ready),
      hang_after_s_(hang_after_s(options, info)),
      metrics_(info.max_batch_tokens, Clock::now()),
      thermometer_(info.pci_bus_ids) {}

bool Link::run(const StopSignal& stop) {
  connect();
  net::PollSet poll;
  poll.descriptors = {{.fd = results_ready_.fd(), .want_read = true},
                      {.fd = stop.fd(), .want_read = true}};
  while (!stop.take()) {
    poll.sockets = {socket_.get()};
    poll.wait(kPollMs);
    receive_all();
    begin_anew_if_lost();
    send_results();
    check_engine();
    send_metrics();
    keep_alive();
  }
  return drain(poll, stop);
}

bool Link::drain(net::PollSet& poll, const StopSignal& stop) {
  log::info("stopping: {} batches to finish", runner_.held());
  send(protocol::WorkerGoodbye{"stopped by a signal"});
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(options_.drain_s));
  while (runner_.held() > 0) {
    if (Clock::now() > deadline || stop.take()) {
      log::warn("{} batches are left to other workers", runner_.held());
      return false;
    }
    poll.wait(kPollMs);
    receive_all();
    send_results();
    check_engine();
  }
  return true;
}

void Link::connect() {
  socket_ = std::make_unique<net::DealerSocket>(context_, options_.coordinator);
  ++connection_;
  runner_.drop_before(connection_);
  welcomed_ = false;
  last_received_ = Clock::now();
  log::info("registering at {}", options_.coordinator);
  hello_.ledger_id = ledger_id_;
  hello_.term_seen = epoch_;
  send(hello_);
}

void Link::send(protocol::Message message) {
  const std::string name(protocol::name_of(message));
  if (socket_->send(protocol::encode(std::move(message))) != net::SendStatus::kSent) {
    log::warn("{} was not sent: the coordinator does not read", name);
    return;
  }
  last_sent_ = Clock::now();
}

void Link::receive_all() {
  net::Incoming incoming;
  while (socket_->receive(incoming)) {
    auto message = net::decode(incoming);
    if (!message) {
      log::warn("a message from the coordinator was dropped: {}", message.error().message);
      continue;
    }
    last_received_ = Clock::now();
    handle(std::move(message).value());
  }
}

void Link::handle(protocol::Message message) {
  if (auto* batch = std::get_if<protocol::Batch>(&message)) {
    on_batch(std::move(*batch));
  } else if (const auto* ping = std::get_if<protocol::Ping>(&message)) {
    send(protocol::Pong{ping->nonce});
  } else if (const auto* welcome = std::get_if<protocol::WorkerWelcome>(&message)) {
    on_welcome(*welcome);
  } else if (const auto* error = std::get_if<protocol::ErrorReply>(&message)) {
    on_error(*error);
  } else if (!std::holds_alternative<protocol::Pong>(message)) {
    log::warn("{} is not for workers", protocol::name_of(message));
  }
}

void Link::on_welcome(const protocol::WorkerWelcome& welcome) {
  const bool other_ledger =
      !ledger_id_.empty() && !welcome.ledger_id.empty() && welcome.ledger_id != ledger_id_;
  if (other_ledger) {
    log::warn(
        "the coordinator has another ledger than before ({} for {}): its Redis was emptied "
        "or replaced; it is followed in leader term {}",
        welcome.ledger_id.substr(0, 8), ledger_id_.substr(0, 8), welcome.epoch);
  } else if (welcome.epoch < epoch_) {
    on_stale_welcome(welcome.epoch);
    return;
  }
  stale_welcomes_ = 0;
  epoch_ = welcome.epoch;
  ledger_id_ = welcome.ledger_id.empty() ? ledger_id_ : welcome.ledger_id;
  heartbeat_ = std::chrono::milliseconds(std::clamp(welcome.heartbeat_ms, 10U, 60'000U));
  patience_ = kMissedHeartbeatsMax * heartbeat_;
  metrics_every_ = std::chrono::milliseconds(
      welcome.metrics_ms == 0 ? 0 : std::clamp(welcome.metrics_ms, 100U, 60'000U));
  welcomed_ = true;
  log::info("registered, leader term {}", epoch_);
}

// Its own ledger tells a coordinator that another has followed it; one that still welcomes after
// many tries leads on a Redis that lost the newer term, and is too old to notice.
void Link::on_stale_welcome(std::uint64_t epoch) {
  log::warn("a coordinator of leader term {} is not followed; the term is {}", epoch, epoch_);
  if (++stale_welcomes_ >= kStaleWelcomesMax) {
    throw FatalError("the coordinator leads term " + std::to_string(epoch) +
                     " and this worker has followed term " + std::to_string(epoch_) +
                     ": its Redis was emptied or is an older copy; start this worker again to "
                     "follow it");
  }
}

void Link::on_batch(protocol::Batch batch) {
  if (!welcomed_ || batch.epoch < epoch_) {
    log::warn("batch {} of leader term {} is refused; the term is {}", batch.batch_id, batch.epoch,
              epoch_);
    return;
  }
  const std::uint64_t id = batch.batch_id;
  if (!runner_.submit(std::move(batch), connection_)) {
    log::warn("batch {} is refused: the coordinator sent more than {} batches", id, hello_.slots);
  }
}

void Link::on_error(const protocol::ErrorReply& error) {
  if (error.code != ErrorCode::kUnavailable && error.code != ErrorCode::kResourceExhausted) {
    throw FatalError("the coordinator refused this worker: " + error.message);
  }
  log::warn("the coordinator cannot take this worker now: {}", error.message);
}

void Link::send_results() {
  results_ready_.clear();
  while (auto outcome = runner_.take_result()) {
    if (!outcome->lengths.empty()) {
      metrics_.on_batch(outcome->lengths, outcome->result);
    }
    for (const protocol::RequestTrace& trace : outcome->traces) {
      log::about(log::Level::kDebug, trace, "batch {} of {} sequences computed in {} us",
                 outcome->result.batch_id, outcome->lengths.size(), outcome->result.compute_us);
    }
    if (outcome->tag == connection_) {
      send(std::move(outcome->result));
    }
  }
}

void Link::send_metrics() {
  const auto now = Clock::now();
  if (!welcomed_ || metrics_every_.count() == 0 || now - metrics_sent_ < metrics_every_) {
    return;
  }
  metrics_sent_ = now;
  protocol::WorkerMetrics metrics = metrics_.report(now);
  metrics.temperature_c = thermometer_.celsius();
  metrics.batches_held = static_cast<std::uint32_t>(runner_.held());
  // It has no answer, so it stands for no ping: who only reports would hear nothing.
  const auto asked_at = last_sent_;
  send(std::move(metrics));
  last_sent_ = asked_at;
}

// A connection that broke took with it what was under way, results among it. The coordinator gives
// those batches to others as soon as it finds this routing id gone.
void Link::begin_anew_if_lost() {
  if (socket_->take_disconnected() && welcomed_) {
    log::warn("the connection to the coordinator broke");
    connect();
  }
}

void Link::keep_alive() {
  const auto now = Clock::now();
  if (now - last_received_ > patience_) {
    log::warn("no word from the coordinator for {} ms", patience_.count());
    patience_ = std::min(2 * patience_, kPatienceMax);
    connect();
  } else if (welcomed_ && now - last_sent_ > heartbeat_) {
    send(protocol::Ping{});
  }
}

void Link::check_engine() const {
  const auto running = std::chrono::duration<double>(runner_.running_for()).count();
  if (running > hang_after_s_) {
    throw FatalError("a batch has been computing for " + std::to_string(running) +
                     " s: the device hangs");
  }
}

}  // namespace tessera::worker
