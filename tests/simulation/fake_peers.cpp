#include <algorithm>
#include <cmath>

#include "common/float16.hpp"
#include "tests/simulation/fake_cluster.hpp"
#include "tests/simulation/fake_model.hpp"

namespace tessera::coordinator::simulation {
namespace {

constexpr std::size_t kResultsRemembered = 6;

}  // namespace

// workers

void FakeCluster::start_worker(std::uint32_t slot, std::uint64_t process) {
  auto worker = std::make_shared<Worker>();
  worker->peer = new_peer("w");
  worker->slot = slot;
  worker->process = process != 0 ? process : next_process_++;
  worker->heard_at = now_;
  worker->express_tokens = worker->process % 3 == 0 ? 0 : 24;  // Older workers take none.
  workers_[slot] = worker;
  const WorkerMemory memory = memories_[worker->process];
  soon(1, [this, worker, memory] {
    feed(FromWorker{worker->peer, protocol::WorkerHello{.name = "w",
                                                        .device = "fake",
                                                        .model = "m",
                                                        .fingerprint = std::string(64, 'f'),
                                                        .tokenizer_hash = "t",
                                                        .hidden_size = kHiddenSize,
                                                        .vocab_size = kVocabSize,
                                                        .max_batch_tokens = 128,
                                                        .max_batch_sequences = 16,
                                                        .max_seqlen = 64,
                                                        .process = worker->process,
                                                        .ledger_id = memory.ledger_id,
                                                        .term_seen = memory.term,
                                                        .express_tokens = worker->express_tokens}});
  });
  soon(100, [this, worker] { worker_ticks(worker); });
}

void FakeCluster::worker_ticks(const std::shared_ptr<Worker>& worker) {
  if (!worker->alive) {
    return;
  }
  if (now_ >= worker->paused_until) {
    if (now_ - worker->heard_at > 3'000'000) {
      worker->alive = false;  // A fresh connection.
      start_worker(worker->slot, worker->process);
      return;
    }
    if (worker->welcomed) {
      feed(FromWorker{worker->peer, protocol::Ping{1}});
    }
  }
  at(now_ + 400 * kMs, [this, worker] { worker_ticks(worker); });
}

void FakeCluster::worker_receives(const std::string& peer, const protocol::Message& message) {
  const auto found = std::ranges::find_if(
      workers_, [&](const auto& w) { return w != nullptr && w->peer == peer && w->alive; });
  if (found == workers_.end()) {
    feed(WorkerGone{peer});
    return;
  }
  const std::shared_ptr<Worker> worker = *found;
  if (now_ < worker->paused_until) {
    at(worker->paused_until + 1, [this, peer, message] { worker_receives(peer, message); });
    return;
  }
  worker->heard_at = now_;
  if (std::holds_alternative<protocol::Ping>(message)) {
    feed(FromWorker{peer, protocol::Pong{}});
  } else if (const auto* welcome = std::get_if<protocol::WorkerWelcome>(&message)) {
    worker_is_welcomed(worker, *welcome);
  } else if (const auto* batch = std::get_if<protocol::Batch>(&message)) {
    if (worker->welcomed && batch->epoch >= memories_[worker->process].term) {
      worker_computes(worker, *batch);
    }
  } else if (const auto* error = std::get_if<protocol::ErrorReply>(&message)) {
    if (error->code != ErrorCode::kUnavailable) {
      problem("a worker was refused: " + error->message);
    }
  }
}

// As worker/link/link.cpp.
void FakeCluster::worker_is_welcomed(const std::shared_ptr<Worker>& worker,
                                     const protocol::WorkerWelcome& welcome) {
  WorkerMemory& memory = memories_[worker->process];
  if (memory.ledger_id == welcome.ledger_id && welcome.epoch < memory.term) {
    return;
  }
  memory.ledger_id = welcome.ledger_id;
  memory.term = welcome.epoch;
  worker->welcomed = true;
  // Of other terms, connections and attempts: batch numbers begin anew with each coordinator.
  for (const protocol::BatchResult& result : memory.results) {
    if (chance(scenario_.faults.stale_results)) {
      soon(40, [this, worker, result] {
        if (worker->alive) feed(FromWorker{worker->peer, result});
      });
    }
  }
}

// Two batches in turns, and one more that overtakes them where the worker said so.
void FakeCluster::worker_counts(Worker& worker, const protocol::Batch& batch) {
  if (!batch.express) {
    worker.batches.insert(batch.batch_id);
    if (worker.batches.size() > 2) problem("a worker has three batches");
    return;
  }
  if (worker.express_batch) problem("a worker has two express batches");
  if (batch.payload.size() / 4 > worker.express_tokens) problem("an express batch is too large");
  worker.express_batch = batch.batch_id;
}

void FakeCluster::worker_computes(const std::shared_ptr<Worker>& worker,
                                  const protocol::Batch& batch) {
  protocol::BatchResult result{
      .epoch = batch.epoch, .batch_id = batch.batch_id, .attempt = batch.attempt, .codes = {}};
  std::size_t at_token = 0;
  std::vector<std::int32_t> ids(batch.payload.size() / 4);
  std::memcpy(ids.data(), batch.payload.data(), batch.payload.size());
  for (const std::uint32_t length : batch.lengths) {
    const auto row = vector_of(std::span(ids).subspan(at_token, length));
    const auto* data = reinterpret_cast<const std::byte*>(row.data());
    result.payload.insert(result.payload.end(), data, data + row.size() * 2);
    result.codes.push_back(0);
    at_token += length;
  }
  worker_counts(*worker, batch);
  std::deque<protocol::BatchResult>& last = memories_[worker->process].results;
  last.push_back(result);
  if (last.size() > kResultsRemembered) last.pop_front();
  const auto takes = kMs + static_cast<Micros>(below(20'000));
  worker->busy_until = (batch.express ? now_ : std::max(worker->busy_until, now_)) + takes;
  const std::function<void()> answer = [this, worker, result] {
    worker->batches.erase(result.batch_id);
    if (worker->express_batch == result.batch_id) worker->express_batch.reset();
    if (worker->alive) {
      feed(FromWorker{worker->peer, result});
    }
  };
  at(worker->busy_until, [this, worker, answer] {
    // A paused process answers when it wakes up: late.
    const Micros when = std::max(now_, worker->paused_until) + 1;
    at(when, answer);
    if (chance(scenario_.faults.duplicate_messages)) {
      at(when + 5 * kMs, answer);
    }
  });
}

// clients

void FakeCluster::send_from_client(const std::string& peer, protocol::Message message) {
  const int copies = chance(scenario_.faults.duplicate_messages) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    soon(1, [this, peer, message] { feed(FromClient{peer, message}); });
  }
}

void FakeCluster::connect(Job& job) {
  job.peer = new_peer("c");
  job.open = job.closed = false;
  job.in_flight.clear();
  job.heard_at = job.hello_at = job.connected_at = now_;
  job.epoch = 0;
  const std::string peer = job.peer;
  // One behind the other, as on one connection.
  soon(1, [this, peer, key = job.key] {
    feed(FromClient{peer, protocol::ClientHello{.tenant = key}});
    feed(FromClient{peer, protocol::OpenJob{.request_id = 7, .job_key = key, .spec = {}}});
  });
}

void FakeCluster::job_ticks(Job& job) {
  if (job.done) {
    return;
  }
  // A coordinator that died may have taken the question with it, and its follower's hellos are no
  // answer: clients repeat what is not answered.
  const bool unanswered = !job.open && now_ - job.connected_at > 2'500'000;
  if (job.peer.empty() || now_ - job.heard_at > 2'500'000 || unanswered) {
    connect(job);
  }
  if (now_ - job.hello_at > 1'000'000) {
    job.hello_at = now_;  // A coordinator restarted behind our back has another epoch.
    send_from_client(job.peer, protocol::ClientHello{.tenant = job.key});
  }
  if (job.open) {
    std::vector<std::uint32_t> order(job.chunks.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    if (chance(scenario_.faults.reordered_chunks)) {
      std::ranges::shuffle(order, random_);
    }
    std::erase_if(job.in_flight, [&](const auto& f) { return now_ - f.second > 1'000'000; });
    for (const std::uint32_t number : order) {
      if (job.in_flight.size() < job.window && !job.accepted.contains(number) &&
          !job.in_flight.contains(number)) {
        job.in_flight[number] = now_;
        send_from_client(job.peer, protocol::SubmitChunk{.job_id = job.id,
                                                         .chunk = number,
                                                         .items = block_of(job.chunks[number])});
      }
    }
    if (job.accepted.size() == job.chunks.size() && !job.closed) {
      send_from_client(job.peer,
                       protocol::CloseJob{.request_id = 8,
                                          .job_id = job.id,
                                          .chunks = static_cast<std::uint32_t>(job.chunks.size())});
      job.closed = true;
    }
  }
  at(now_ + 50 * kMs, [this, &job] { job_ticks(job); });
}

void FakeCluster::client_receives(const std::string& peer, const protocol::Message& message) {
  if (keepers_.receives(peer, message, now_)) {
    return;
  }
  if (peer == query_peer_) {
    if (const auto* reply = std::get_if<protocol::EmbedReply>(&message)) {
      query_answered(message, reply->request_id);
    } else if (const auto* error = std::get_if<protocol::ErrorReply>(&message)) {
      query_answered(message, error->request_id);
    }
    return;
  }
  for (const auto& job : jobs_) {
    if (job->peer == peer) {
      job_receives(*job, message);
      return;
    }
    if (job->rival_peer == peer) {
      if (const auto* ack = std::get_if<protocol::ChunkAck>(&message)) {
        rival_answered(*job, *ack);
      }
      return;
    }
  }
  feed(ClientGone{peer});
}

void FakeCluster::job_receives(Job& job, const protocol::Message& message) {
  job.heard_at = now_;
  if (const auto* hello = std::get_if<protocol::ServerHello>(&message)) {
    if (job.epoch != 0 && hello->epoch != job.epoch) {
      connect(job);
    } else {
      job.epoch = hello->epoch;
    }
  } else if (const auto* opened = std::get_if<protocol::JobOpened>(&message)) {
    job_opened(job, *opened);
  } else if (const auto* error = std::get_if<protocol::ErrorReply>(&message)) {
    if (error->code == ErrorCode::kUnavailable || error->code == ErrorCode::kNotFound) {
      job.peer.clear();  // Connects and asks again.
    } else {
      problem(job.key + ": " + error->message);
    }
  } else if (const auto* ack = std::get_if<protocol::ChunkAck>(&message)) {
    chunk_answered(job, *ack);
  } else if (const auto* result = std::get_if<protocol::ChunkResult>(&message)) {
    result_arrives(job, *result);
  } else if (const auto* update = std::get_if<protocol::JobUpdate>(&message)) {
    if (update->progress.state == protocol::JobState::kDone) {
      job.done = true;
      const std::uint64_t items = job.chunks.size() * scenario_.items_per_chunk;
      if (job.results.size() != job.chunks.size() || update->progress.items_done != items) {
        problem(job.key + " is done with " + std::to_string(job.results.size()) + " chunks and " +
                std::to_string(update->progress.items_done) + " items");
      }
    }
  }
}

void FakeCluster::send_query() {
  if (now_ > scenario_.faults_end) {
    return;
  }
  const std::uint64_t id = next_query_++;
  Query query{.peer = query_peer_, .texts = {}};
  for (std::uint64_t i = 0; i < 1 + below(3); ++i) {
    query.texts.push_back("text " + std::to_string(2 + below(scenario_.distinct_texts)));
  }
  queries_[id] = query;
  soon(1, [this, id, query] {
    if (core_ == nullptr || query.peer != query_peer_) {
      queries_.erase(id);  // Sent to nobody: its client asks again.
      return;
    }
    feed(FromClient{
        query.peer,
        protocol::EmbedRequest{
            .request_id = id, .spec = {}, .deadline_ms = 20'000, .items = block_of(query.texts)}});
  });
  soon(1000.0 / scenario_.queries_per_s, [this] { send_query(); });
}

void FakeCluster::query_answered(const protocol::Message& message, std::uint64_t request_id) {
  const auto found = queries_.find(request_id);
  if (found == queries_.end()) {
    problem("query " + std::to_string(request_id) + " was answered twice");
    return;
  }
  if (const auto* reply = std::get_if<protocol::EmbedReply>(&message)) {
    const std::string wrong = check_result(found->second.texts, reply->results);
    if (!wrong.empty()) {
      problem("query: " + wrong);
    }
    ++queries_answered_;
  }
  queries_.erase(found);
}

std::string FakeCluster::check_result(const std::vector<std::string>& texts,
                                      const protocol::ResultBlock& results) const {
  if (results.codes.size() != texts.size()) {
    return "another number of items";
  }
  std::size_t row = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto code = static_cast<ErrorCode>(results.codes[i]);
    const auto expected_code = texts[i] == " "                  ? ErrorCode::kEmptyText
                               : texts[i].starts_with(kBadText) ? ErrorCode::kInvalidUtf8
                                                                : ErrorCode::kOk;
    const bool some_die =
        scenario_.faults.worker_kills_per_s > 0 || scenario_.faults.worker_pauses_per_s > 0;
    if (code == ErrorCode::kPoison && expected_code == ErrorCode::kOk && some_die) {
      continue;  // Three kills hit the same item: rightly an error.
    }
    if (code != expected_code) {
      return texts[i] + ": " + std::string(to_string(code));
    }
    if (code != ErrorCode::kOk) {
      continue;
    }
    std::vector<float> expected(kHiddenSize);
    from_float16(vector_of(ids_of(texts[i])), expected);
    std::vector<float> got(kHiddenSize);
    std::memcpy(got.data(), results.payload.data() + row * kHiddenSize * 4, kHiddenSize * 4);
    for (std::size_t d = 0; d < kHiddenSize; ++d) {
      if (std::abs(expected[d] - got[d]) > 1e-3F) {
        return texts[i] + ": the wrong vector";
      }
    }
    ++row;
  }
  return row * kHiddenSize * 4 == results.payload.size() ? "" : "rows without an item";
}

}  // namespace tessera::coordinator::simulation
