#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>

#include "common/net/zmq_socket.hpp"
#include "common/os/stop_signal.hpp"
#include "coordinator/core/core.hpp"
#include "coordinator/ledger_scripts.hpp"
#include "coordinator/model_catalog.hpp"
#include "coordinator/options.hpp"
#include "coordinator/private_redis.hpp"
#include "coordinator/redis_client.hpp"
#include "coordinator/redis_server_info.hpp"
#include "coordinator/tokenize_pool.hpp"

namespace tessera::coordinator {

// The process: sockets, Redis and threads around the core. Everything but tokenising happens on the
// thread that calls `run`; events go into the core one by one and its actions are carried out at
// once, in order.
class Coordinator {
 public:
  // Loads models, reaches Redis (or starts it), becomes leader, reads all jobs, binds. Throws
  // FatalError with one line when any of it fails.
  explicit Coordinator(const Options& options);
  ~Coordinator();

  // Serves until the signal, then finishes what is in flight for at most options.drain_s; false
  // when that was not enough. Throws FatalError when another coordinator has taken over.
  bool run(const StopSignal& stop);

 private:
  using Clock = std::chrono::steady_clock;

  RedisValue read_ledger(RedisCommand command);
  std::vector<ledger::StoredJob> load_jobs();
  std::vector<ledger::StoredRecord> load_records();
  Result<RedisValue> ask_ledger_server(RedisCommand command);
  const RedisAddress& ledger_address() const;
  const RedisAddress& cache_address() const;
  void connect_redis();
  // Becomes leader, and begins on what the ledger has; `after`: not for the first time.
  void begin_term(const std::optional<BeginTerm>& after);
  [[noreturn]] void refuse_redis(const std::string& why) const;
  // Throws when it would lose jobs by itself.
  RedisServerInfo check_ledger_server();
  Lead become_leader(const std::optional<BeginTerm>& after);
  void write_port_file() const;

  void wait(const StopSignal& stop);
  void receive(bool from_clients);
  void take_tokens();
  void tick();
  void step(Event event);
  void perform(SendClient& action);
  void perform(SendWorker& action);
  void perform(RunLedger& action);
  void perform(CacheGet& action);
  void perform(CachePut& action);
  void perform(Tokenise& action);
  void perform(Stop& action);
  void perform(BeginTerm& action);
  Micros now() const;

  const Options options_;
  std::vector<CatalogEntry> models_;
  std::unique_ptr<PrivateRedis> private_redis_;
  std::unique_ptr<PrivateRedis> private_cache_;
  std::unique_ptr<RedisClient> ledger_;
  std::unique_ptr<RedisClient> cache_;
  ledger::Term term_;
  net::WakeUp wake_;
  net::Context context_;
  std::unique_ptr<net::RouterSocket> clients_;
  std::unique_ptr<net::RouterSocket> workers_;
  std::unique_ptr<TokenizePool> tokenisers_;
  std::unique_ptr<Core> core_;
  std::unordered_set<std::string> deaf_clients_;  // Connections that are heard no more.
  std::deque<Event> inbox_;                       // What came up while actions were carried out.
  Clock::time_point next_tick_;
  Clock::time_point next_metrics_;
  bool ledger_up_ = true;
  std::optional<BeginTerm> next_term_;  // Set: the core's term is over.
  std::optional<std::string> stopped_;  // Set: ended, with an error unless empty.
};

}  // namespace tessera::coordinator
