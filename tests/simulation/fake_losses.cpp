#include "common/wire/chunk_digest.hpp"
#include "tests/simulation/fake_cluster.hpp"
#include "tests/simulation/fake_model.hpp"

// A ledger that loses what it had, and two clients that send unlike items under one number.
namespace tessera::coordinator::simulation {

// the ledger

void FakeCluster::begin_term(std::uint64_t above) {
  queries_.clear();  // Not durable: their client asks again.
  query_peer_ = new_peer("q");
  ledger_waiting_.clear();
  start_core(above);
}

void FakeCluster::lose_ledger(bool all) {
  if (all) {
    ledger_.empty();
  } else {
    if (ledger_.term().sequence == older_copy_->term().sequence) {
      return;  // Nothing has happened since.
    }
    ledger_.restore(*older_copy_);
  }
  ++ledger_losses_;
  if (core_ != nullptr && chance(0.5)) {
    kill_core();
    queries_.clear();
    query_peer_ = new_peer("q");
  } else if (core_ != nullptr && lost_at_ == 0) {
    lost_at_ = now_;
  }
}

// Within some seconds of a server that answers, whatever else is going on.
void FakeCluster::check_loss_is_noticed() {
  if (lost_at_ != 0 && core_ == nullptr) {
    lost_at_ = 0;
  }
  if (lost_at_ != 0 && !ledger_up_) {
    lost_at_ = now_;
  }
  if (lost_at_ != 0 && now_ - lost_at_ > 5'000'000) {
    problem("the ledger lost what it had and nobody noticed");
  }
}

// two clients of one job

void FakeCluster::job_opened(Job& job, const protocol::JobOpened& opened) {
  job.open = true;
  job.id = opened.job_id;
  job.window = opened.window_chunks;
  std::set<std::uint32_t> accepted;
  for (const auto& [first, last] : opened.accepted) {
    for (std::uint32_t n = first; n <= last; ++n) {
      accepted.insert(n);
    }
  }
  if (job.opened_by >= lossy_incarnation_) {
    for (const std::uint32_t number : job.accepted) {
      if (!accepted.contains(number)) {
        problem(job.key + ": chunk " + std::to_string(number) + " was acknowledged and is lost");
      }
    }
  }
  job.opened_by = sender_;
  job.accepted = accepted;
  ask_for_accepted(job);
}

void FakeCluster::ask_for_accepted(Job& job) {
  for (const std::uint32_t number : job.accepted) {
    if (chance(0.3)) {
      const auto digest = protocol::digest_of(block_of(job.chunks[number]));
      send_from_client(job.peer,
                       protocol::SubmitChunk{.job_id = job.id,
                                             .chunk = number,
                                             .items = {},
                                             .digest = std::vector(digest.begin(), digest.end())});
    }
  }
}

void FakeCluster::adopt(Job& job, std::uint32_t chunk) {
  const auto rival = job.rival_chunks.find(chunk);
  if (rival == job.rival_chunks.end() || job.own.contains(chunk)) {
    problem(job.key + ": chunk " + std::to_string(chunk) + " is said to have other items");
    return;
  }
  job.chunks[chunk] = rival->second;
  job.accepted.insert(chunk);
}

void FakeCluster::chunk_answered(Job& job, const protocol::ChunkAck& ack) {
  job.in_flight.erase(ack.chunk);
  const auto rival = job.rival_chunks.find(ack.chunk);
  const bool adopted = rival != job.rival_chunks.end() && rival->second == job.chunks[ack.chunk];
  if (ack.code == ErrorCode::kOk) {
    if (job.rival_accepted.contains(ack.chunk) && !adopted) {
      problem(job.key + ": two chunks were accepted under one number");
    }
    job.accepted.insert(ack.chunk);
    if (!adopted) {
      job.own.insert(ack.chunk);
    }
  } else if (ack.code == ErrorCode::kConflict) {
    if (!adopted) {  // Else of what was sent before.
      adopt(job, ack.chunk);
    }
  } else if (ack.code == ErrorCode::kNotFound) {
    job.peer.clear();  // Connects and opens the job again.
  } else if (ack.code != ErrorCode::kResourceExhausted && ack.code != ErrorCode::kUnavailable) {
    problem(job.key + ": chunk refused: " + ack.message);
  }
}

void FakeCluster::result_arrives(Job& job, const protocol::ChunkResult& result) {
  std::string wrong = check_result(job.chunks.at(result.chunk), result.results);
  const auto rival = job.rival_chunks.find(result.chunk);
  if (!wrong.empty() && rival != job.rival_chunks.end() && !job.own.contains(result.chunk)) {
    wrong = check_result(rival->second, result.results);
    job.chunks[result.chunk] = rival->second;
  }
  if (!wrong.empty()) {
    problem(job.key + " chunk " + std::to_string(result.chunk) + ": " + wrong);
  }
  const auto [kept, is_new] = job.results.try_emplace(result.chunk, result.results);
  if (!is_new && kept->second.payload != result.results.payload) {
    problem(job.key + ": a chunk ended twice with different results");
  }
  send_from_client(job.peer, protocol::ResultAck{job.id, result.chunk});
}

void FakeCluster::send_rival_chunk(Job& job) {
  if (job.id.empty()) {
    return;
  }
  if (job.rival_peer.empty()) {
    job.rival_peer = new_peer("r");
  }
  const auto number = static_cast<std::uint32_t>(below(job.chunks.size()));
  auto [texts, is_new] = job.rival_chunks.try_emplace(number, job.chunks[number]);
  if (is_new) {
    texts->second[below(texts->second.size())] = "the rival's " + std::to_string(number);
  }
  send_from_client(
      job.rival_peer,
      protocol::SubmitChunk{.job_id = job.id, .chunk = number, .items = block_of(texts->second)});
}

void FakeCluster::rival_answered(Job& job, const protocol::ChunkAck& ack) {
  if (ack.code == ErrorCode::kOk) {
    if (job.own.contains(ack.chunk)) {
      problem(job.key + ": two chunks were accepted under one number");
    }
    job.rival_accepted.insert(ack.chunk);
  }
}

}  // namespace tessera::coordinator::simulation
