#include "coordinator/coordinator.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/net/receive.hpp"
#include "common/os/replace_file.hpp"
#include "common/wire/codec.hpp"
#include "common/wire/codec_origin.hpp"

namespace tessera::coordinator {
namespace {

using namespace std::chrono_literals;

constexpr auto kTick = 50ms;
constexpr auto kMetricsEvery = 10s;
constexpr auto kRedisPatience = 10s;  // A given server is there, or it is not.
constexpr auto kCacheStartPatience = 3s;
constexpr auto kPrivateRedisPatience = 60s;  // Our own may have a long file to read.
// A server that syncs each write may take seconds on a busy disk; a broken connection costs all
// that was under way, which then is computed again.
constexpr std::chrono::milliseconds kCachePatience{5000};
constexpr int kMessagesPerTurn = 128;
constexpr std::size_t kCacheWritesMax = 20'000;  // Beyond this, vectors are not cached in Redis.
constexpr std::size_t kCacheWriteBytesMax = 128U << 20;
// What one client that does not read may have waiting for it; more than one message of any size.
constexpr int kClientQueueMessages = 4000;
constexpr std::size_t kClientQueueBytes = 128U << 20;
constexpr std::size_t kDeafClientsMax = 10'000;

// Results of accepted items, which a full server takes as well, go beyond its maxmemory by twice a
// sixth of it at the most (JobLimits::owed_bytes_max). The private one has room for that.
constexpr std::uint64_t kOwedShare = 6;
int maxmemory_mb_of(int redis_mb) { return redis_mb / 4 * 3; }

CoreOptions core_options(const Options& options, const std::vector<CatalogEntry>& models,
                         LedgerInfo ledger, const RedisServerInfo& server) {
  CoreOptions core{.models = {},
                   .epoch = ledger.term,
                   .ledger = std::move(ledger),
                   .cache_bytes = static_cast<std::size_t>(options.cache_mb) << 20U};
  for (const CatalogEntry& entry : models) {
    core.models.push_back(entry.model);
  }
  core.dispatcher.registry.heartbeat_us = Micros{1000} * options.heartbeat_ms;
  core.jobs.window_chunks = static_cast<std::uint32_t>(options.window_chunks);
  if (server.maxmemory > 0) {
    core.jobs.owed_bytes_max = server.maxmemory / kOwedShare;
  }
  return core;
}

// A term is at least the minute, counted from 2026 on, in which it begins. So a ledger that was
// emptied comes back with a term above all that were, and workers follow it that know no ledger id.
std::uint64_t minute_now() {
  constexpr std::chrono::sys_days kStart = std::chrono::year(2026) / 1 / 1;
  const auto since = std::chrono::system_clock::now() - kStart;
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(1, std::chrono::duration_cast<std::chrono::minutes>(since).count()));
}

std::string random_ledger_id() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    id += fmt::format("{:08x}", random());
  }
  return id;
}

std::string warning_of(const BeginTerm& after, const Lead& lead, std::size_t jobs) {
  return after.why + "; term " + std::to_string(lead.term.number) +
         (lead.is_new ? " began with nothing, and what was accepted before is lost"
                      : " goes on with the " + std::to_string(jobs) +
                            " jobs that are there, and what they had besides is lost");
}

}  // namespace

Coordinator::Coordinator(const Options& options)
    : options_(options), models_(load_models(options.models)) {
  if (!options_.redis) {
    private_redis_ = std::make_unique<PrivateRedis>(options_.data_dir, PrivateRedis::Keeps::kLedger,
                                                    maxmemory_mb_of(options_.redis_mb));
    if (!options_.redis_cache) {
      private_cache_ =
          std::make_unique<PrivateRedis>(std::filesystem::path(options_.data_dir) / "cache",
                                         PrivateRedis::Keeps::kCache, options_.redis_cache_mb);
    }
  }
  if (private_cache_) {
    // A moment for what it reads from its file; later it is only a cache that does not answer yet.
    RedisClient probe({.address = cache_address(), .scripts = {}, .resend = true});
    (void)probe.call({.args = {"PING"}, .tail = {}}, kCacheStartPatience);
  }
  begin_term(std::nullopt);
  tokenisers_ = std::make_unique<TokenizePool>(models_, options_.threads, wake_);
  clients_ = std::make_unique<net::RouterSocket>(
      context_, options_.listen,
      net::SocketOptions{.send_queue_messages = kClientQueueMessages,
                         .send_queue_bytes = kClientQueueBytes});
  workers_ = std::make_unique<net::RouterSocket>(context_, options_.worker_listen);
  log::info("clients at {}, workers at {}", clients_->endpoint(), workers_->endpoint());
  if (!options_.port_file.empty()) {
    write_port_file();
  }
}

Coordinator::~Coordinator() = default;

// Anew for each term: what was asked in the last one is not asked again.
void Coordinator::connect_redis() {
  ledger_ = std::make_unique<RedisClient>(RedisOptions{
      .address = ledger_address(), .scripts = ledger_scripts(), .resend = true, .timeout = 10s});
  cache_ = std::make_unique<RedisClient>(RedisOptions{
      .address = cache_address(), .scripts = {}, .resend = false, .timeout = kCachePatience});
}

void Coordinator::begin_term(const std::optional<BeginTerm>& after) {
  inbox_.clear();
  connect_redis();
  const RedisServerInfo server = check_ledger_server();
  const Lead lead = become_leader(after);
  term_ = lead.term;
  const std::vector<ledger::StoredJob> stored = load_jobs();
  LedgerInfo info{.id = term_.ledger_id,
                  .term = term_.number,
                  .term_before = lead.term_before,
                  .warning = after ? warning_of(*after, lead, stored.size()) : ""};
  if (after) {
    log::error("{}", info.warning);
  }
  core_ = std::make_unique<Core>(core_options(options_, models_, std::move(info), server), stored,
                                 now(), load_records());
  log::info("leader term {} of {}ledger {}, {} jobs in it", term_.number, lead.is_new ? "new " : "",
            term_.ledger_id, stored.size());
}

Result<RedisValue> Coordinator::ask_ledger_server(RedisCommand command) {
  const auto patience = private_redis_ ? kPrivateRedisPatience : kRedisPatience;
  return ledger_->call(std::move(command),
                       std::chrono::duration_cast<std::chrono::milliseconds>(patience));
}

const RedisAddress& Coordinator::ledger_address() const {
  return private_redis_ ? private_redis_->address() : *options_.redis;
}

const RedisAddress& Coordinator::cache_address() const {
  if (private_cache_) {
    return private_cache_->address();
  }
  return options_.redis_cache ? *options_.redis_cache : ledger_address();
}

void Coordinator::refuse_redis(const std::string& why) const {
  throw FatalError("cannot use Redis at " + ledger_address().printable() + ": " + why);
}

RedisServerInfo Coordinator::check_ledger_server() {
  const auto answer = ask_ledger_server(server_info_command());
  if (!answer && answer.error().message.starts_with("NOPERM")) {
    log::warn("Redis does not say how it keeps data: {}", answer.error().message);
    return {};
  }
  if (!answer) {
    refuse_redis(answer.error().message);
  }
  const RedisServerInfo server = read_server_info(answer->text);
  if (const std::string refusal = ledger_refusal(server); !refusal.empty()) {
    refuse_redis(refusal);
  }
  const bool with_cache = cache_address().same_server(ledger_address());
  for (const std::string& warning : ledger_warnings(server, with_cache)) {
    log::warn("{}", warning);
  }
  return server;
}

Lead Coordinator::become_leader(const std::optional<BeginTerm>& after) {
  LeadRequest request{.fresh_id = random_ledger_id(), .at_least = minute_now()};
  if (after) {
    request.at_least = std::max(request.at_least, after->above + 1);
    request.former_id = term_.ledger_id;
    request.former_term = term_.number;
  }
  const auto answer = ask_ledger_server(lead_command(request));
  if (!answer) {
    refuse_redis(answer.error().message);
  }
  auto lead = to_lead(*answer);
  if (!lead) {
    throw FatalError(lead.error().message);
  }
  return std::move(*lead);
}

RedisValue Coordinator::read_ledger(RedisCommand command) {
  auto answer = ledger_->call(std::move(command), 30s);
  if (!answer) {
    throw FatalError("cannot read the ledger: " + answer.error().message);
  }
  return std::move(answer).value();
}

std::vector<ledger::StoredRecord> Coordinator::load_records() {
  std::vector<ledger::StoredRecord> records;
  for (const RedisValue& id : read_ledger(list_records_command()).items) {
    auto record = to_stored_record(id.text, read_ledger(load_record_command(id.text)));
    if (record) {
      records.push_back(std::move(record).value());
    } else {
      log::error("{}", record.error().message);
    }
  }
  return records;
}

std::vector<ledger::StoredJob> Coordinator::load_jobs() {
  std::vector<ledger::StoredJob> jobs;
  for (const RedisValue& id : read_ledger(list_jobs_command()).items) {
    auto job = to_stored_job(id.text, read_ledger(load_job_command(id.text)));
    if (job) {
      jobs.push_back(std::move(job).value());
    } else {
      log::error("{}", job.error().message);
    }
  }
  return jobs;
}

void Coordinator::write_port_file() const {
  const nlohmann::json json = {{"clients", clients_->endpoint()},
                               {"workers", workers_->endpoint()},
                               {"epoch", term_.number}};
  replace_file(options_.port_file, json.dump() + "\n");  // Readers see all of it or nothing.
}

Micros Coordinator::now() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch())
      .count();
}

bool Coordinator::run(const StopSignal& stop) {
  bool draining = false;
  Clock::time_point deadline;
  next_tick_ = Clock::now();
  next_metrics_ = Clock::now() + kMetricsEvery;
  while (!stopped_) {
    wait(stop);
    if (stop.take()) {
      if (draining) {
        return false;  // Asked a second time.
      }
      draining = true;
      deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(options_.drain_s));
      log::info("stopping: finishing what is in flight");
      step(StopRequested{});
    }
    receive(false);
    receive(true);
    take_tokens();
    tick();
    if (next_term_) {
      begin_term(std::exchange(next_term_, std::nullopt));
      if (draining) {
        step(StopRequested{});
      }
    }
    if (draining && Clock::now() > deadline && !stopped_) {
      log::warn("not all was finished in time; jobs go on after the next start");
      return false;
    }
  }
  if (!stopped_->empty()) {
    throw FatalError(*stopped_);
  }
  return true;
}

void Coordinator::wait(const StopSignal& stop) {
  net::PollSet poll;
  poll.sockets = {clients_.get(), workers_.get()};
  poll.descriptors = {{.fd = wake_.fd(), .want_read = true}, {.fd = stop.fd(), .want_read = true}};
  std::vector<RedisClient*> polled;
  for (RedisClient* client : {ledger_.get(), cache_.get()}) {
    if (const auto wanted = client->descriptor(); wanted.fd >= 0) {
      poll.descriptors.push_back(wanted);
      polled.push_back(client);
    }
  }
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(next_tick_ - Clock::now());
  const bool busy = core_->has_backlog() || !inbox_.empty();
  poll.wait(busy ? 0 : static_cast<int>(std::max<std::int64_t>(0, left.count() + 1)));
  for (std::size_t i = 0; i < polled.size(); ++i) {
    polled[i]->handle(poll.descriptors[i + 2]);
  }
}

void Coordinator::receive(bool from_clients) {
  net::RouterSocket& socket = from_clients ? *clients_ : *workers_;
  net::Incoming incoming;
  for (int i = 0; i < kMessagesPerTurn && socket.receive(incoming); ++i) {
    if (from_clients && deaf_clients_.contains(incoming.peer)) {
      continue;
    }
    auto message = net::decode(incoming);
    if (from_clients && message) {
      step(FromClient{std::move(incoming.peer), std::move(message).value()});
    } else if (from_clients) {
      step(BadFromClient{std::move(incoming.peer), message.error(),
                         protocol::read_origin(incoming.header)});
    } else if (message) {
      step(FromWorker{std::move(incoming.peer), std::move(message).value()});
    } else {
      step(BadFromWorker{std::move(incoming.peer), message.error()});
    }
  }
}

void Coordinator::take_tokens() {
  wake_.clear();
  for (TokensReady& ready : tokenisers_->take_results()) {
    step(std::move(ready));
  }
}

void Coordinator::tick() {
  while (!inbox_.empty()) {
    Event event = std::move(inbox_.front());
    inbox_.pop_front();
    step(std::move(event));
  }
  if (core_->has_backlog()) {
    step(Tick{});
  }
  const auto moment = Clock::now();
  if (moment < next_tick_) {
    return;
  }
  next_tick_ = moment + kTick;
  for (PrivateRedis* server : {private_redis_.get(), private_cache_.get()}) {
    if (server != nullptr) {
      server->restart_if_ended();
    }
  }
  ledger_->tick(moment);
  cache_->tick(moment);
  if (ledger_->ready() != ledger_up_) {
    ledger_up_ = ledger_->ready();
    step(LedgerState{ledger_up_});
  }
  step(Tick{});
  if (moment >= next_metrics_) {
    next_metrics_ = moment + kMetricsEvery;
    log::info("{}", core_->metrics());
  }
}

void Coordinator::step(Event event) {
  Actions actions = core_->step(std::move(event), now());
  for (Action& action : actions) {
    std::visit([this](auto& a) { perform(a); }, action);
  }
}

void Coordinator::perform(SendClient& action) {
  const auto status = clients_->send(action.peer, protocol::encode(std::move(action.message)));
  if (status == net::SendStatus::kFull) {
    // Something it waits for is lost from here on. It hears no more of us on this connection, and
    // so begins anew on another one when it reads again.
    log::warn("a client does not read: its connection counts as gone");
    if (deaf_clients_.size() >= kDeafClientsMax) {
      deaf_clients_.clear();
    }
    deaf_clients_.insert(action.peer);
  }
  if (status != net::SendStatus::kSent) {
    inbox_.emplace_back(ClientGone{std::move(action.peer)});
  }
}

void Coordinator::perform(SendWorker& action) {
  const auto status = workers_->send(action.peer, protocol::encode(std::move(action.message)));
  if (status != net::SendStatus::kSent) {
    inbox_.emplace_back(WorkerGone{std::move(action.peer)});
  }
}

void Coordinator::perform(RunLedger& action) {
  const std::size_t operation = action.operation.index();
  ledger_->run(to_command(std::move(action.operation), term_), [this, id = action.id, operation,
                                                                asked_at =
                                                                    now()](RedisValue value) {
    ledger::Reply reply = to_reply(std::move(value));
    term_.sequence = std::max(term_.sequence, reply.sequence);
    inbox_.emplace_back(LedgerReply{
        .id = id, .reply = std::move(reply), .operation = operation, .took_us = now() - asked_at});
  });
}

void Coordinator::perform(CacheGet& action) {
  const auto reply_to = [this, id = action.id, asked_at = now()](RedisValue value) {
    CacheReply reply{.id = id, .values = {}, .took_us = now() - asked_at};
    for (const RedisValue& item : value.items) {
      const auto* data = reinterpret_cast<const std::byte*>(item.text.data());
      reply.values.emplace_back();
      if (item.kind == RedisValue::Kind::kString) {
        reply.values.back().emplace(data, data + item.text.size());
      }
    }
    inbox_.emplace_back(std::move(reply));
  };
  cache_->run(cache_get_command(action.keys), reply_to);
}

void Coordinator::perform(CachePut& action) {
  const std::int64_t ttl_ms = std::int64_t{options_.cache_ttl_h} * 3600 * 1000;
  for (const auto& [key, embedding] : action.entries) {
    const std::size_t open = cache_->open_commands();
    if (cache_->ready() && open < kCacheWritesMax &&
        open * embedding->values.size() * sizeof(std::uint16_t) < kCacheWriteBytesMax) {
      cache_->run(cache_put_command(key, *embedding, ttl_ms), [](const RedisValue&) {});
    }
  }
}

void Coordinator::perform(Tokenise& action) { tokenisers_->submit(std::move(action)); }

void Coordinator::perform(Stop& action) { stopped_ = std::move(action.error); }

void Coordinator::perform(BeginTerm& action) { next_term_ = std::move(action); }

}  // namespace tessera::coordinator
