#include "tests/simulation/fake_cluster.hpp"

#include <algorithm>

#include "tests/simulation/fake_model.hpp"

namespace tessera::coordinator::simulation {

FakeCluster::FakeCluster(const Scenario& scenario)
    : scenario_(scenario),
      random_(scenario.seed),
      keepers_({.send =
                    [this](const std::string& peer, protocol::Message message) {
                      send_from_client(peer, std::move(message));
                    },
                .problem = [this](const std::string& what) { problem(what); }}) {
  ledger_.bytes_max = scenario.ledger_bytes_max;
  ledger_.compares_digests = scenario.plant != Plant::kDigestsAreNotCompared;
  ledger_.notices_losses = scenario.plant != Plant::kLossesAreNotNoticed;
  for (std::uint32_t j = 0; j < scenario.jobs; ++j) {
    auto job = std::make_unique<Job>();
    job->number = j;
    job->key = "job " + std::to_string(j);
    for (std::uint32_t c = 0; c < scenario.chunks_per_job; ++c) {
      std::vector<std::string>& texts = job->chunks.emplace_back();
      for (std::uint32_t i = 0; i < scenario.items_per_chunk; ++i) {
        const std::uint64_t pick = below(scenario.distinct_texts);
        texts.push_back(pick == 0 ? " " : pick == 1 ? "bad text" : "text " + std::to_string(pick));
      }
    }
    jobs_.push_back(std::move(job));
  }
  workers_.resize(scenario.workers);
}

FakeCluster::~FakeCluster() = default;

// time

void FakeCluster::at(Micros when, std::function<void()> action) {
  timeline_.push({when, next_order_++, std::move(action)});
}

void FakeCluster::soon(double mean_ms, std::function<void()> action) {
  const double delay = std::exponential_distribution<double>(1.0 / mean_ms)(random_);
  at(now_ + 1 + static_cast<Micros>(delay * kMs), std::move(action));
}

// As ZeroMQ: what the coordinator sends to one peer arrives in the order in which it was sent.
void FakeCluster::in_order(const std::string& peer, std::function<void()> arrive) {
  const double delay = std::exponential_distribution<double>(1.0)(random_);
  Micros& last = arrives_[peer];
  last = std::max(last, now_ + 1 + static_cast<Micros>(delay * kMs));
  at(last, std::move(arrive));
}

bool FakeCluster::chance(double probability) {
  return std::uniform_real_distribution<double>(0, 1)(random_) < probability;
}

std::uint64_t FakeCluster::below(std::uint64_t bound) { return random_() % bound; }

std::string FakeCluster::new_peer(std::string_view kind) {
  return std::string(kind).append(std::to_string(next_peer_++));
}

// What a client is told must be in the ledger by then, where the ledger loses nothing.
void FakeCluster::check_is_durable(const protocol::Message& message) {
  if (scenario_.faults.ledger_emptied_per_s > 0 || scenario_.faults.ledger_older_per_s > 0) {
    return;
  }
  if (const auto* result = std::get_if<protocol::ChunkResult>(&message)) {
    if (!ledger_.has_stored(result->job_id, result->chunk)) {
      problem("chunk " + std::to_string(result->chunk) + " was sent before it was stored");
    }
  } else if (const auto* ack = std::get_if<protocol::ChunkAck>(&message)) {
    if (ack->code == ErrorCode::kOk && !ledger_.has_accepted(ack->job_id, ack->chunk)) {
      problem("chunk " + std::to_string(ack->chunk) + " was acknowledged before it was stored");
    }
  }
}

void FakeCluster::problem(const std::string& what) {
  if (problems_.size() < 10) {
    problems_.push_back("at " + std::to_string(now_ / kMs) + " ms: " + what);
  }
}

// the coordinator's process

void FakeCluster::start_core(std::uint64_t above) {
  ++incarnation_;
  lost_at_ = 0;
  if (std::exchange(losses_met_, ledger_losses_) != ledger_losses_) {
    lossy_incarnation_ = incarnation_;
  }
  epoch_ = ledger_.become_leader(above);
  ledger_id_ = ledger_.term().ledger_id;
  ledger_sequence_ = ledger_.term().sequence;
  CoreOptions options{
      .models = {{.name = "m",
                  .tokenizer_hash = "t",
                  .hidden_size = kHiddenSize,
                  .max_seqlen = 64,
                  .vocab_size = kVocabSize,
                  .final_token = kFinalToken,
                  .query_prefix = "query: "}},
      .epoch = epoch_,
      .ledger = {.id = ledger_.term().ledger_id, .term_before = ledger_.term_before()},
      .cache_bytes = 20'000};
  options.jobs.window_chunks = scenario_.window_chunks;
  options.jobs.resident_bytes_max = scenario_.resident_bytes_max;
  options.jobs.owed_bytes_max = scenario_.owed_bytes_max;
  core_ = std::make_unique<Core>(std::move(options), ledger_.load(), now_, ledger_.load_records());
}

void FakeCluster::kill_core() {
  core_.reset();
  ++incarnation_;
  ledger_waiting_.clear();
  soon(500, [this] { start_core(); });
}

void FakeCluster::feed(Event event) {
  if (core_ == nullptr) {
    return;
  }
  for (Action& action : core_->step(std::move(event), now_)) {
    perform(std::move(action));
  }
  while (core_ != nullptr && core_->has_backlog()) {
    for (Action& action : core_->step(Tick{}, now_)) {
      perform(std::move(action));
    }
  }
}

void FakeCluster::perform(Action action) {
  const std::uint64_t incarnation = incarnation_;
  const auto back = [this, incarnation](Event event) {
    if (incarnation == incarnation_) {
      feed(std::move(event));
    }
  };
  if (auto* to_client = std::get_if<SendClient>(&action)) {
    check_is_durable(to_client->message);
    in_order(to_client->peer, [this, incarnation, a = std::move(*to_client)] {
      sender_ = incarnation;
      client_receives(a.peer, a.message);
    });
  } else if (auto* to_worker = std::get_if<SendWorker>(&action)) {
    in_order(to_worker->peer,
             [this, a = std::move(*to_worker)] { worker_receives(a.peer, a.message); });
  } else if (auto* operation = std::get_if<RunLedger>(&action)) {
    perform_ledger(std::move(*operation));
  } else if (auto* get = std::get_if<CacheGet>(&action)) {
    if (chance(scenario_.cache_hangs)) {
      return;
    }
    soon(1, [this, back, a = std::move(*get)] {
      CacheReply reply{.id = a.id, .values = {}};
      for (const CacheKey& key : a.keys) {
        const auto found = ledger_.cache.find(key);
        reply.values.emplace_back();
        if (scenario_.cache_works && found != ledger_.cache.end()) {
          reply.values.back() = found->second;
        }
      }
      back(std::move(reply));
    });
  } else if (auto* put = std::get_if<CachePut>(&action)) {
    for (const auto& [key, embedding] : put->entries) {
      protocol::Bytes value = encode_cache_value(key, *embedding);
      if (chance(0.05)) {
        value[below(value.size())] ^= std::byte{1};  // A damaged entry must be a miss.
      }
      ledger_.cache[key] = std::move(value);
    }
  } else if (auto* work = std::get_if<Tokenise>(&action)) {
    soon(2, [this, incarnation, a = std::move(*work)] {
      if (incarnation == incarnation_) {
        tokenise(a);
      }
    });
  } else if (auto* stop = std::get_if<Stop>(&action)) {
    problem("the core stopped: " + stop->error);
  } else if (const auto* begin = std::get_if<BeginTerm>(&action)) {
    at(now_ + 1, [this, incarnation, above = begin->above] {
      if (incarnation == incarnation_) {
        begin_term(above);
      }
    });
  }
}

// Redis answers in order; operations of a killed coordinator may still arrive, but before the next
// one becomes leader or fenced.
void FakeCluster::perform_ledger(RunLedger action) {
  const auto shared = std::make_shared<RunLedger>(std::move(action));
  const std::uint64_t incarnation = incarnation_;
  const ledger::Term term{ledger_id_, epoch_, ledger_sequence_};
  const std::function<void()> arrive = [this, shared, incarnation, term] {
    const bool refused = now_ < scenario_.faults_end && chance(scenario_.faults.ledger_refusals);
    const ledger::Reply reply = refused ? ledger::Reply{.status = ledger::Status::kFailed}
                                        : ledger_.run(shared->operation, term);
    check_owed();
    if (incarnation == incarnation_) {
      soon(0.2, [this, shared, incarnation, reply] {
        if (incarnation == incarnation_) {
          ledger_sequence_ = std::max(ledger_sequence_, reply.sequence);
          feed(LedgerReply{.id = shared->id, .reply = reply});
        }
      });
    }
  };
  if (!ledger_up_) {
    ledger_waiting_.push_back(arrive);
    return;
  }
  ledger_busy_until_ = std::max(ledger_busy_until_, now_) + 1 + static_cast<Micros>(below(300));
  at(ledger_busy_until_, arrive);
}

// As JobLimits::owed_bytes_max promises.
void FakeCluster::check_owed() {
  const std::uint64_t bytes = ledger_.owed_items() * kRowBytes;
  const std::uint64_t chunk_bytes = scenario_.items_per_chunk * kRowBytes;
  if (bytes > 2 * scenario_.owed_bytes_max + scenario_.jobs * chunk_bytes) {
    problem("the ledger owes " + std::to_string(bytes) + " bytes of results");
  }
}

void FakeCluster::tokenise(const Tokenise& work) {
  TokensReady ready;
  for (const TextToTokenise& text : work.texts) {
    TokenisedItem& item = ready.items.emplace_back();
    item.key = text.key;
    if (text.text.starts_with(kBadText)) {
      item.ids = Error{ErrorCode::kInvalidUtf8, "bad"};
    } else {
      item.ids = PreparedIds{.ids = ids_of(text.text), .tokens_cut = 0};
    }
  }
  feed(std::move(ready));
}

// the run

void FakeCluster::inject_faults() {
  if (now_ > scenario_.faults_end) {
    return;
  }
  const Faults& faults = scenario_.faults;
  constexpr double kTurnsPerS = 10;
  const std::uint64_t slot = below(workers_.size());
  if (chance(faults.worker_kills_per_s / kTurnsPerS) && workers_[slot]->alive) {
    workers_[slot]->alive = false;
    soon(1000, [this, slot] { start_worker(static_cast<std::uint32_t>(slot)); });
  }
  if (chance(faults.connection_breaks_per_s / kTurnsPerS) && workers_[slot]->alive) {
    workers_[slot]->alive = false;
    const std::string lost = workers_[slot]->peer;
    if (chance(0.5)) {
      feed(WorkerGone{lost});  // Otherwise the fresh connection tells, or a send.
    }
    start_worker(static_cast<std::uint32_t>(slot), workers_[slot]->process);
  }
  if (chance(faults.worker_pauses_per_s / kTurnsPerS)) {
    workers_[slot]->paused_until = now_ + 1'000'000 + static_cast<Micros>(below(6'000'000));
  }
  if (chance(faults.client_losses_per_s / kTurnsPerS)) {
    Job& job = *jobs_[below(jobs_.size())];
    const std::string lost = std::exchange(job.peer, "");
    if (chance(0.5)) {
      feed(ClientGone{lost});  // Otherwise a later send finds out.
    }
  }
  if (core_ != nullptr && chance(faults.coordinator_kills_per_s / kTurnsPerS)) {
    kill_core();
    queries_.clear();  // Not durable: their client asks again.
    query_peer_ = new_peer("q");
  }
  if (chance(faults.rival_chunks_per_s / kTurnsPerS)) {
    send_rival_chunk(*jobs_[below(jobs_.size())]);
  }
  if (now_ - copied_at_ > 1'500'000 && faults.ledger_older_per_s > 0) {
    copied_at_ = now_;
    older_copy_ = ledger_;
  }
  if (chance(faults.ledger_emptied_per_s / kTurnsPerS)) {
    lose_ledger(true);
  }
  if (older_copy_ && chance(faults.ledger_older_per_s / kTurnsPerS)) {
    lose_ledger(false);
  }
  if (ledger_up_ && chance(faults.ledger_outages_per_s / kTurnsPerS)) {
    ledger_up_ = false;
    feed(LedgerState{false});
    soon(1500, [this] {
      ledger_up_ = true;
      for (const auto& operation : std::exchange(ledger_waiting_, {})) {
        operation();
      }
      feed(LedgerState{true});
    });
  }
  at(now_ + 100 * kMs, [this] { inject_faults(); });
}

bool FakeCluster::all_done() const {
  return std::ranges::all_of(jobs_, [](const auto& job) { return job->done; }) &&
         queries_.empty() && now_ > scenario_.faults_end;
}

std::vector<std::string> FakeCluster::run() {
  start_core();
  query_peer_ = "q0";
  for (std::uint32_t slot = 0; slot < scenario_.workers; ++slot) {
    start_worker(slot);
  }
  for (const auto& job : jobs_) {
    soon(10, [this, &job] { job_ticks(*job); });
  }
  if (scenario_.queries_per_s > 0) {
    soon(10, [this] { send_query(); });
  }
  std::function<void()> tick = [&] {
    feed(Tick{});
    if (scenario_.keeps_records) {
      keepers_.tick(now_);
    }
    check_loss_is_noticed();
    at(now_ + 100 * kMs, tick);
  };
  at(100 * kMs, tick);
  inject_faults();
  while (!timeline_.empty() && !all_done() && now_ < scenario_.end && problems_.empty()) {
    const Timed next = timeline_.top();
    timeline_.pop();
    now_ = next.when;
    next.action();
  }
  if (problems_.empty() && !all_done()) {
    std::string open = core_ ? core_->metrics() : "";
    for (const auto& job : jobs_) {
      open += "; " + job->key + (job->done ? " done" : " open") + " accepted " +
              std::to_string(job->accepted.size()) + " results " +
              std::to_string(job->results.size());
    }
    problem("not finished: " + std::to_string(queries_.size()) + " queries; " + open);
  }
  // An older copy may have jobs again that their clients know as done.
  if (problems_.empty() && ledger_losses_ == 0 && ledger_.contents() != 0) {
    problem("the ledger keeps " + std::to_string(ledger_.contents()) + " contents of ended jobs");
  }
  if (problems_.empty() && ledger_losses_ == 0 && core_ != nullptr && core_->owed_bytes() != 0) {
    problem("results of ended jobs are owed");
  }
  if (problems_.empty() && scenario_.queries_per_s > 0 && queries_answered_ == 0) {
    problem("no query got a vector");
  }
  if (problems_.empty() && scenario_.keeps_records && keepers_.changes() == 0) {
    problem("no change of a record was acknowledged");
  }
  return problems_;
}

}  // namespace tessera::coordinator::simulation
