#pragma once

#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/core.hpp"
#include "tests/simulation/fake_keepers.hpp"
#include "tests/simulation/fake_ledger.hpp"

namespace tessera::coordinator::simulation {

// How much goes wrong until `faults_end`; from then on nothing does, and all must come to its end.
struct Faults {
  double worker_kills_per_s = 0;
  double worker_pauses_per_s = 0;      // Longer than the liveness limit; late results follow.
  double connection_breaks_per_s = 0;  // The worker begins anew on another.
  double client_losses_per_s = 0;      // The connection breaks; what was under way is lost.
  double coordinator_kills_per_s = 0;
  double ledger_outages_per_s = 0;
  double ledger_refusals = 0;     // Share of operations: it is full, or its disk is.
  double duplicate_messages = 0;  // Share of clients' messages and of results sent twice.
  double stale_results = 0;  // Share of a process's last results that it sends again when welcomed.
  double reordered_chunks = 0;    // Share of chunks sent out of order.
  double rival_chunks_per_s = 0;  // Another client sends other items for a job's chunk.
  double ledger_emptied_per_s = 0;
  double ledger_older_per_s = 0;  // It is as it was some seconds ago.
};

// What is left out on purpose; the run must find it.
enum class Plant : std::uint8_t {
  kNone,
  kDigestsAreNotCompared,  // By the ledger.
  kLossesAreNotNoticed,    // By the ledger's scripts.
};

struct Scenario {
  std::uint64_t seed = 1;
  Faults faults;
  Micros faults_end = 30'000'000;
  Micros end = 600'000'000;  // Not finished by then: stuck.
  std::uint32_t workers = 3;
  std::uint32_t jobs = 3;
  std::uint32_t chunks_per_job = 20;
  std::uint32_t items_per_chunk = 12;
  std::uint32_t distinct_texts = 150;
  std::uint32_t queries_per_s = 20;
  bool cache_works = true;
  double cache_hangs = 0;  // Share of lookups that are never answered.
  std::uint32_t window_chunks = 8;
  std::size_t resident_bytes_max = 512U << 20;
  std::uint64_t owed_bytes_max = 512U << 20;
  std::size_t ledger_bytes_max = std::numeric_limits<std::size_t>::max();
  bool keeps_records = true;  // Not where the ledger is to lose them.
  Plant plant = Plant::kNone;
};

// A core, fake workers, clients, tokenisers and a ledger on a simulated clock: every delay and
// every fault comes from the seed. Whatever goes wrong is collected in `problems`.
class FakeCluster {
 public:
  explicit FakeCluster(const Scenario& scenario);
  ~FakeCluster();
  // Runs to the end and returns what was wrong; empty when all held.
  std::vector<std::string> run();

 private:
  struct Worker {
    std::string peer;
    std::uint32_t slot = 0;
    std::uint64_t process = 0;
    bool alive = true;
    Micros paused_until = 0;
    Micros heard_at = 0;
    Micros busy_until = 0;
    bool welcomed = false;
    std::uint32_t express_tokens = 0;
    std::set<std::uint64_t> batches;  // Received and not answered, express ones apart.
    std::optional<std::uint64_t> express_batch;
  };
  // What a worker's process remembers over its connections.
  struct WorkerMemory {
    std::string ledger_id;
    std::uint64_t term = 0;
    std::deque<protocol::BatchResult> results;  // The last ones.
  };
  struct Job {
    std::uint32_t number = 0;
    std::string key;
    std::string peer;
    std::string id;
    bool open = false;
    bool closed = false;
    bool done = false;
    Micros heard_at = 0;
    Micros hello_at = 0;
    Micros connected_at = 0;
    std::uint64_t epoch = 0;
    std::uint32_t window = 1;
    std::set<std::uint32_t> accepted;
    std::map<std::uint32_t, Micros> in_flight;
    std::map<std::uint32_t, protocol::ResultBlock> results;
    std::vector<std::vector<std::string>> chunks;
    std::uint64_t opened_by = 0;  // Which incarnation of the core.
    std::set<std::uint32_t> own;  // Acknowledged with our items.
    // Another client of the same job: what it has sent, and what of it was acknowledged.
    std::string rival_peer;
    std::map<std::uint32_t, std::vector<std::string>> rival_chunks;
    std::set<std::uint32_t> rival_accepted;
  };
  struct Query {
    std::string peer;
    std::vector<std::string> texts;
  };

  // time
  void at(Micros when, std::function<void()> action);
  void soon(double mean_ms, std::function<void()> action);
  void in_order(const std::string& peer, std::function<void()> arrive);
  bool chance(double probability);
  std::uint64_t below(std::uint64_t bound);
  std::string new_peer(std::string_view kind);
  void check_is_durable(const protocol::Message& message);
  void problem(const std::string& what);

  // the coordinator's process
  void start_core(std::uint64_t above = 0);
  void begin_term(std::uint64_t above);
  // The ledger is emptied, or an older copy takes its place; perhaps while no core runs.
  void lose_ledger(bool all);
  void check_loss_is_noticed();
  void kill_core();
  void feed(Event event);
  void perform(Action action);
  void perform_ledger(RunLedger action);
  void check_owed();
  void tokenise(const Tokenise& work);

  // workers
  // A new process, or the same one on a fresh connection.
  void start_worker(std::uint32_t slot, std::uint64_t process = 0);
  std::uint64_t next_process_ = 1;
  std::map<std::uint64_t, WorkerMemory> memories_;  // By process.
  void worker_is_welcomed(const std::shared_ptr<Worker>& worker,
                          const protocol::WorkerWelcome& welcome);
  void worker_counts(Worker& worker, const protocol::Batch& batch);
  void worker_receives(const std::string& peer, const protocol::Message& message);
  void worker_computes(const std::shared_ptr<Worker>& worker, const protocol::Batch& batch);
  void worker_ticks(const std::shared_ptr<Worker>& worker);

  // clients
  void send_from_client(const std::string& peer, protocol::Message message);
  void client_receives(const std::string& peer, const protocol::Message& message);
  void connect(Job& job);
  void job_ticks(Job& job);
  void job_receives(Job& job, const protocol::Message& message);
  // What the ledger has for a chunk is the rival's: so be it.
  void adopt(Job& job, std::uint32_t chunk);
  void chunk_answered(Job& job, const protocol::ChunkAck& ack);
  void result_arrives(Job& job, const protocol::ChunkResult& result);
  void job_opened(Job& job, const protocol::JobOpened& opened);
  void ask_for_accepted(Job& job);
  void send_rival_chunk(Job& job);
  void rival_answered(Job& job, const protocol::ChunkAck& ack);
  void send_query();
  void query_answered(const protocol::Message& message, std::uint64_t request_id);
  std::string check_result(const std::vector<std::string>& texts,
                           const protocol::ResultBlock& results) const;

  void inject_faults();
  bool all_done() const;

  const Scenario scenario_;
  std::mt19937_64 random_;
  Micros now_ = 0;
  struct Timed {
    Micros when;
    std::uint64_t order;
    std::function<void()> action;
    bool operator>(const Timed& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };
  std::priority_queue<Timed, std::vector<Timed>, std::greater<>> timeline_;
  std::uint64_t next_order_ = 0;

  FakeLedger ledger_;
  bool ledger_up_ = true;
  std::vector<std::function<void()>> ledger_waiting_;  // Operations while it is down.
  Micros ledger_busy_until_ = 0;
  std::uint64_t ledger_sequence_ = 0;  // The highest that the core was answered.
  std::uint64_t ledger_losses_ = 0;
  std::uint64_t losses_met_ = 0;         // By the core that runs.
  std::uint64_t lossy_incarnation_ = 0;  // The last that began on a ledger that had lost something.
  std::uint64_t sender_ = 0;             // Which incarnation's message is being received.
  Micros lost_at_ = 0;                   // Not noticed yet; 0: nothing is.
  std::optional<FakeLedger> older_copy_;  // Of some seconds ago.
  Micros copied_at_ = 0;
  std::uint64_t incarnation_ = 0;  // Of the core; events for an older one are dropped.
  std::uint64_t epoch_ = 0;
  std::string ledger_id_;  // Of the core that runs.
  std::unique_ptr<Core> core_;

  std::map<std::string, Micros> arrives_;  // When the last message to a peer does.
  std::uint64_t next_peer_ = 1;
  std::vector<std::shared_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::map<std::uint64_t, Query> queries_;
  std::uint64_t next_query_ = 1;
  std::string query_peer_;
  std::uint64_t queries_answered_ = 0;
  FakeKeepers keepers_;
  std::vector<std::string> problems_;
};

}  // namespace tessera::coordinator::simulation
