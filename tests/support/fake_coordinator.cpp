#include "tests/support/fake_coordinator.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "common/wire/codec.hpp"
#include "common/wire/embed_batch.hpp"

namespace tessera::test {
namespace {

using protocol::ErrorReply;
using protocol::JobState;

bool take_one(std::atomic<int>& counter) {
  int left = counter.load();
  while (left > 0 && !counter.compare_exchange_weak(left, left - 1)) {
  }
  return left > 0;
}

template <typename Map>
std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges_of(const Map& chunks) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
  for (const auto& [chunk, value] : chunks) {
    if (!ranges.empty() && ranges.back().second + 1 == chunk) {
      ranges.back().second = chunk;
    } else {
      ranges.emplace_back(chunk, chunk);
    }
  }
  return ranges;
}

}  // namespace

std::vector<float> fake_vector(std::span<const std::byte> item, std::uint32_t dimensions) {
  const std::string_view text(reinterpret_cast<const char*>(item.data()), item.size());
  std::mt19937_64 random(std::hash<std::string_view>()(text));
  std::vector<float> vector(dimensions);
  float squares = 0;
  for (float& value : vector) {
    value = static_cast<float>(random() % 2001) - 1000.0F;
    squares += value * value;
  }
  std::ranges::for_each(vector, [&](float& value) { value /= std::sqrt(squares); });
  return vector;
}

FakeCoordinator::FakeCoordinator() { start(); }
FakeCoordinator::~FakeCoordinator() { stop(); }

void FakeCoordinator::start() {
  ++epoch_;
  // ZeroMQ lets a closed socket's port go a moment later.
  for (int tries = 0; !socket_; ++tries) {
    try {
      socket_ = std::make_unique<net::RouterSocket>(context_, address_);
    } catch (const FatalError&) {
      CHECK(tries < 1000);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  if (epoch_ == 1) {
    address_ = socket_->endpoint();
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void FakeCoordinator::stop() {
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
    socket_.reset();
  }
}

void FakeCoordinator::restart() {
  stop();
  {
    const std::lock_guard lock(mutex_);
    for (auto& [key, job] : jobs_) {
      job.peer.clear();
      job.sent.clear();
    }
  }
  start();
}

void FakeCoordinator::forget_ledger() {
  const std::lock_guard lock(mutex_);
  jobs_.clear();
}

FakeCoordinator::Counts FakeCoordinator::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

bool FakeCoordinator::job_done(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(key);
  return found != jobs_.end() && found->second.state == JobState::kDone;
}

void FakeCoordinator::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    net::PollSet poll;
    poll.sockets.push_back(socket_.get());
    poll.wait(5);
    net::Incoming incoming;
    while (socket_->receive(incoming)) {
      auto message = protocol::decode(incoming.header, std::move(incoming.payload));
      CHECK(message.ok());
      const std::lock_guard lock(mutex_);
      handle(incoming.peer, std::move(*message));
    }
    const std::lock_guard lock(mutex_);
    send_results();
  }
}

void FakeCoordinator::send(const std::string& peer, protocol::Message message) {
  if (!silent && !peer.empty()) {
    (void)socket_->send(peer, protocol::encode(std::move(message)));
  }
}

void FakeCoordinator::handle(const std::string& peer, protocol::Message message) {
  if (std::get_if<protocol::ClientHello>(&message) != nullptr) {
    ++counts_.hellos;
    send(peer, protocol::ServerHello{.minor = minor,
                                     .server = "fake",
                                     .epoch = epoch_,
                                     .models = {{.name = "fake",
                                                 .fingerprint = std::string(64, fingerprint),
                                                 .workers = 1}}});
  } else if (auto* ping = std::get_if<protocol::Ping>(&message)) {
    send(peer, protocol::Pong{ping->nonce});
  } else if (reads_nothing) {
    send(peer, ErrorReply{0, ErrorCode::kInvalidArgument, "field 2 has a wrong type or value", 0});
  } else if (auto* embed_request = std::get_if<protocol::EmbedRequest>(&message)) {
    ++counts_.embed_messages;
    answer_embed(peer, *embed_request);
  } else if (auto* batch = std::get_if<protocol::EmbedRequests>(&message)) {
    ++counts_.embed_messages;
    const auto requests = protocol::unpack(std::move(*batch));
    CHECK(requests.ok());
    for (const protocol::EmbedRequest& request : *requests) {
      answer_embed(peer, request);
    }
  } else if (auto* open = std::get_if<protocol::OpenJob>(&message)) {
    ++counts_.opens;
    open_job(peer, *open);
  } else if (auto* chunk = std::get_if<protocol::SubmitChunk>(&message)) {
    take_chunk(peer, std::move(*chunk));
  } else if (auto* ack = std::get_if<protocol::ResultAck>(&message)) {
    ++counts_.acks;
    if (Job* job = job_with_id(ack->job_id)) {
      const auto result = job->results.find(ack->chunk);
      if (result != job->results.end()) {
        job->delivered[ack->chunk] = static_cast<std::uint32_t>(result->second.codes.size());
        job->results.erase(result);
      }
      end_if_done(*job);
    }
  } else if (auto* close = std::get_if<protocol::CloseJob>(&message)) {
    Job* job = job_with_id(close->job_id);
    if (job == nullptr) {
      send(peer, ErrorReply{close->request_id, ErrorCode::kNotFound, "no such job"});
      return;
    }
    job->chunks_total = close->chunks;
    send(peer, protocol::JobUpdate{close->request_id, progress(*job)});
    end_if_done(*job);
  } else if (auto* cancel = std::get_if<protocol::CancelJob>(&message)) {
    Job* job = job_with_id(cancel->job_id);
    if (job == nullptr) {
      send(peer, ErrorReply{cancel->request_id, ErrorCode::kNotFound, "no such job"});
      return;
    }
    job->state = JobState::kCancelled;
    send(peer, protocol::JobUpdate{cancel->request_id, progress(*job)});
    if (job->peer != peer) {
      send(job->peer, protocol::JobUpdate{0, progress(*job)});
    }
  } else if (auto* status = std::get_if<protocol::StatusRequest>(&message)) {
    protocol::StatusReply reply{.request_id = status->request_id, .epoch = epoch_};
    reply.models = {{.name = "fake", .fingerprint = std::string(64, fingerprint), .workers = 1}};
    for (const auto& [key, job] : jobs_) {
      if (status->job_id.empty() || status->job_id == job.id) {
        reply.jobs.push_back(progress(job));
      }
    }
    send(peer, std::move(reply));
  }
}

void FakeCoordinator::answer_embed(const std::string& peer, const protocol::EmbedRequest& request) {
  ++counts_.embeds;
  if (take_one(refuse_embeds)) {
    send(peer, ErrorReply{request.request_id, ErrorCode::kResourceExhausted, "full", 1});
    return;
  }
  send(peer, protocol::EmbedReply{request.request_id, embed(request.items, request.spec)});
}

void FakeCoordinator::open_job(const std::string& peer, const protocol::OpenJob& open) {
  if (refuse_specs) {
    send(peer, ErrorReply{open.request_id, ErrorCode::kInvalidArgument, "a bad spec"});
    return;
  }
  auto [entry, is_new] = jobs_.try_emplace(open.job_key);
  Job& job = entry->second;
  if (is_new) {
    job.id = "job-" + std::to_string(++jobs_made_);
    job.open = open;
  } else if (!(job.open.spec == open.spec)) {
    send(peer, ErrorReply{open.request_id, ErrorCode::kConflict, "the job has another spec"});
    return;
  }
  job.peer = peer;
  job.sent.clear();
  protocol::JobOpened opened{.request_id = open.request_id,
                             .job_id = job.id,
                             .state = job.state,
                             .window_chunks = window_chunks};
  opened.accepted = ranges_of(job.results);
  opened.delivered = ranges_of(job.delivered);
  send(peer, std::move(opened));
}

void FakeCoordinator::take_chunk(const std::string& peer, protocol::SubmitChunk chunk) {
  const bool is_question = chunk.items.sizes.empty();
  ++(is_question ? counts_.questions : counts_.chunks);
  const auto digest =
      is_question ? protocol::to_digest(chunk.digest) : protocol::digest_of(chunk.items);
  Job* job = job_with_id(chunk.job_id);
  protocol::ChunkAck ack{.job_id = chunk.job_id, .chunk = chunk.chunk};
  if (job == nullptr || job->peer != peer) {
    ack.code = ErrorCode::kNotFound;
  } else if (job->state == JobState::kCancelled) {
    ack.code = ErrorCode::kCancelled;
  } else if (job->digests.contains(chunk.chunk) && job->digests[chunk.chunk] != digest) {
    ack.code = ErrorCode::kConflict;
    ack.message = "other items";
  } else if (!is_question && take_one(refuse_chunks)) {
    ack.code = ErrorCode::kResourceExhausted;
    ack.retry_after_ms = 1;
  } else if (job->results.contains(chunk.chunk) || job->delivered.contains(chunk.chunk)) {
    ++counts_.chunk_repeats;
  } else if (is_question) {
    ack.code = ErrorCode::kNotFound;
  } else {
    CHECK(job->results.size() < window_chunks);
    job->digests[chunk.chunk] = digest.value();
    job->results[chunk.chunk] = embed(chunk.items, job->open.spec);
    if (take_one(lose_chunk_acks)) {
      return;
    }
  }
  send(peer, std::move(ack));
}

void FakeCoordinator::send_results() {
  if (hold_results) {
    return;
  }
  for (auto& [key, job] : jobs_) {
    std::vector<std::uint32_t> chunks;
    for (const auto& [chunk, result] : job.results) {
      if (!job.sent[chunk] && job.state != JobState::kCancelled) {
        chunks.push_back(chunk);
      }
    }
    if (reverse_results) {
      std::ranges::reverse(chunks);
    }
    for (const std::uint32_t chunk : chunks) {
      job.sent[chunk] = true;
      if (!take_one(lose_results)) {
        send(job.peer, protocol::ChunkResult{job.id, chunk, job.results[chunk]});
      }
    }
  }
}

void FakeCoordinator::end_if_done(Job& job) {
  if (job.chunks_total && job.delivered.size() == *job.chunks_total &&
      job.state != JobState::kCancelled) {
    job.state = JobState::kDone;
    send(job.peer, protocol::JobUpdate{0, progress(job)});
  }
}

protocol::ResultBlock FakeCoordinator::embed(const protocol::ItemBlock& items,
                                             const protocol::EmbedSpec& spec) {
  protocol::ResultBlock block{.dimensions =
                                  spec.dimensions != 0 ? spec.dimensions : dimensions.load()};
  std::size_t offset = 0;
  for (std::uint32_t i = 0; i < items.sizes.size(); ++i) {
    const auto item = std::span(items.payload).subspan(offset, items.sizes[i]);
    offset += items.sizes[i];
    ++counts_.items_embedded;
    ++block.cache_misses;
    block.token_counts.push_back(items.sizes[i] / 4 + 1);
    if (item.empty()) {
      block.codes.push_back(static_cast<std::uint8_t>(ErrorCode::kEmptyText));
      block.errors.push_back({i, "the text is empty"});
      continue;
    }
    block.codes.push_back(0);
    const auto vector = fake_vector(item, block.dimensions);
    const auto bytes = std::as_bytes(std::span(vector));
    block.payload.insert(block.payload.end(), bytes.begin(), bytes.end());
  }
  return block;
}

protocol::JobProgress FakeCoordinator::progress(const Job& job) const {
  protocol::JobProgress progress{.job_id = job.id, .job_key = job.open.job_key, .state = job.state};
  progress.chunks_delivered = job.delivered.size();
  progress.chunks_done = progress.chunks_accepted = job.delivered.size() + job.results.size();
  progress.chunks_total = job.chunks_total.value_or(0);
  return progress;
}

FakeCoordinator::Job* FakeCoordinator::job_with_id(const std::string& id) {
  const auto found =
      std::ranges::find_if(jobs_, [&](const auto& entry) { return entry.second.id == id; });
  return found == jobs_.end() ? nullptr : &found->second;
}

}  // namespace tessera::test
