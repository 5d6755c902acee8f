#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "common/log.hpp"
#include "coordinator/core/core.hpp"
#include "tests/simulation/fake_ledger.hpp"
#include "tests/simulation/fake_model.hpp"

namespace tessera::coordinator {

// A core step by step: its ledger, cache and tokenisers answer at once unless a test turns one off,
// its peers are what the test sends and what is collected here. For whole runs with delays and
// faults see tests/simulation.
class CoreHarness {
 public:
  // `stored` is what an earlier coordinator has left.
  explicit CoreHarness(CoreOptions options = default_options(), simulation::FakeLedger stored = {})
      : ledger(std::move(stored)),
        epoch(ledger.become_leader()),
        core(with_term(std::move(options), ledger), ledger.load(), now, ledger.load_records()) {
    log::set_level(log::Level::kOff);
  }

  static CoreOptions default_options() {
    return {.models = {{.name = "m",
                        .tokenizer_hash = "t",
                        .hidden_size = simulation::kHiddenSize,
                        .max_seqlen = 64,
                        .vocab_size = simulation::kVocabSize,
                        .final_token = simulation::kFinalToken,
                        .query_prefix = "query: "}},
            .cache_bytes = 1U << 20};
  }

  void step(Event event) {
    events_.push_back(std::move(event));
    while (!events_.empty()) {
      Event next = std::move(events_.front());
      events_.pop_front();
      for (Action& action : core.step(std::move(next), now)) {
        std::visit([this](auto& a) { perform(a); }, action);
      }
    }
  }
  void from_client(const std::string& peer, protocol::Message message) {
    step(FromClient{peer, std::move(message)});
  }
  void pass(Micros span) {
    now += span;
    step(Tick{});
  }

  void add_worker(const std::string& peer, protocol::WorkerHello hello = {}) {
    hello.name = peer;
    hello.model = "m";
    if (hello.fingerprint.empty() && hello.former_fingerprint.empty()) {
      hello.fingerprint = std::string(64, 'f');
    }
    hello.tokenizer_hash = "t";
    hello.hidden_size = core_hidden_size;
    hello.vocab_size = simulation::kVocabSize;
    hello.max_batch_tokens = hello.max_batch_tokens == 0 ? 4096 : hello.max_batch_tokens;
    hello.max_batch_sequences = 512;
    hello.max_seqlen = 64;
    step(FromWorker{peer, std::move(hello)});
  }
  // Answers every batch that has been sent and not answered.
  void work() {
    while (!batches.empty()) {
      const auto [peer, batch] = std::move(batches.front());
      batches.pop_front();
      protocol::BatchResult result{
          .epoch = batch.epoch, .batch_id = batch.batch_id, .attempt = batch.attempt};
      result.codes.assign(batch.lengths.size(), 0);
      result.payload.assign(batch.lengths.size() * core_hidden_size * 2, std::byte{0x30});
      step(FromWorker{peer, std::move(result)});
    }
  }

  // The messages of a type that a client has got, oldest first.
  template <typename M>
  std::vector<M> got(const std::string& peer) const {
    std::vector<M> messages;
    const auto found = to_client.find(peer);
    for (std::size_t i = 0; found != to_client.end() && i < found->second.size(); ++i) {
      if (const M* message = std::get_if<M>(&found->second[i])) {
        messages.push_back(*message);
      }
    }
    return messages;
  }
  // Opens a job and gives its id; `request_id` tells the opens of one client apart.
  JobId open_job(const std::string& peer, const std::string& key, protocol::EmbedSpec spec = {}) {
    from_client(peer, protocol::OpenJob{.request_id = 1, .job_key = key, .spec = std::move(spec)});
    const auto opened = got<protocol::JobOpened>(peer);
    return opened.empty() ? JobId() : opened.back().job_id;
  }
  void submit(const std::string& peer, const JobId& job, std::uint32_t chunk,
              const std::vector<std::string>& texts) {
    from_client(peer, protocol::SubmitChunk{
                          .job_id = job, .chunk = chunk, .items = simulation::block_of(texts)});
  }

  Micros now = 1'000'000;
  std::uint32_t core_hidden_size = simulation::kHiddenSize;
  bool ledger_answers = true;
  ledger::Status ledger_status = ledger::Status::kDone;  // Of operations that change something.
  bool cache_answers = true;
  std::size_t cache_gets = 0;
  std::size_t cache_puts = 0;
  std::vector<std::uint64_t> unanswered_gets;
  std::vector<CacheKey> keys_asked;   // By the last of them.
  std::vector<RunLedger> operations;  // All that were asked for.
  std::map<std::string, std::vector<protocol::Message>> to_client;
  std::map<std::string, std::vector<protocol::Message>> to_worker;  // But batches.
  std::deque<std::pair<std::string, protocol::Batch>> batches;
  simulation::FakeLedger ledger;
  std::uint64_t epoch;
  std::string ledger_id = ledger.term().ledger_id;
  std::uint64_t sequence = 0;  // The highest that was answered.
  std::vector<Stop> stops;
  std::vector<BeginTerm> terms;
  Core core;

 private:
  static CoreOptions with_term(CoreOptions options, const simulation::FakeLedger& ledger) {
    options.epoch = ledger.term().number;
    options.ledger.id = ledger.term().ledger_id;
    options.ledger.term_before = ledger.term_before();
    return options;
  }
  void perform(SendClient& action) { to_client[action.peer].push_back(std::move(action.message)); }
  void perform(SendWorker& action) {
    if (auto* batch = std::get_if<protocol::Batch>(&action.message)) {
      batches.emplace_back(action.peer, std::move(*batch));
    } else {
      to_worker[action.peer].push_back(std::move(action.message));
    }
  }
  void perform(RunLedger& action) {
    operations.push_back(action);
    if (!ledger_answers) {
      return;
    }
    ledger::Reply reply{.status = ledger_status};
    if (ledger_status == ledger::Status::kDone) {
      reply = ledger.run(action.operation,
                         {.ledger_id = ledger_id, .number = epoch, .sequence = sequence});
      sequence = std::max(sequence, reply.sequence);
    }
    events_.push_back(LedgerReply{.id = action.id,
                                  .reply = std::move(reply),
                                  .operation = action.operation.index(),
                                  .took_us = 2000});
  }
  void perform(CacheGet& action) {
    ++cache_gets;
    if (cache_answers) {
      events_.push_back(CacheReply{.id = action.id, .values = {}});
    } else {
      unanswered_gets.push_back(action.id);
      keys_asked = action.keys;
    }
  }
  void perform(CachePut& action) { cache_puts += action.entries.size(); }
  void perform(Tokenise& action) {
    TokensReady ready;
    for (const TextToTokenise& text : action.texts) {
      ready.items.push_back(
          {.key = text.key, .ids = PreparedIds{.ids = simulation::ids_of(text.text)}});
    }
    events_.push_back(std::move(ready));
  }
  void perform(Stop& action) { stops.push_back(std::move(action)); }
  void perform(BeginTerm& action) { terms.push_back(std::move(action)); }

  std::deque<Event> events_;
};

}  // namespace tessera::coordinator
