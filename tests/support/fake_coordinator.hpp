#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/net/zmq_socket.hpp"
#include "common/wire/chunk_digest.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::test {

// The vector that the fake gives for an item: a unit vector made from the hash of its bytes.
std::vector<float> fake_vector(std::span<const std::byte> item, std::uint32_t dimensions);

// A coordinator for tests of clients: speaks the client's side of the protocol from a thread of its
// own, embeds by fake_vector, and misbehaves on request. Its ledger outlives restart(), as Redis
// would; forget_ledger() loses it. All functions may be called from any thread.
class FakeCoordinator {
 public:
  FakeCoordinator();
  ~FakeCoordinator();
  FakeCoordinator(const FakeCoordinator&) = delete;
  FakeCoordinator& operator=(const FakeCoordinator&) = delete;

  const std::string& address() const { return address_; }

  // Ends and starts again on the same address, with another epoch.
  void restart();
  void forget_ledger();
  void stop();  // Nobody answers any more.
  void start();

  struct Counts {
    std::uint64_t hellos = 0, embeds = 0, embed_messages = 0, opens = 0, chunks = 0,
                  chunk_repeats = 0, questions = 0, acks = 0, items_embedded = 0;
  };
  Counts counts() const;
  bool job_done(const std::string& key) const;

  // What may be turned on and off while it runs.
  std::atomic<std::uint32_t> window_chunks{8};
  std::atomic<int> refuse_embeds{0};         // So many more get RESOURCE_EXHAUSTED, retry at once.
  std::atomic<int> refuse_chunks{0};         // The same for chunks.
  std::atomic<int> lose_chunk_acks{0};       // So many more are written down and not acknowledged.
  std::atomic<int> lose_results{0};          // So many more results are made and not sent.
  std::atomic<bool> hold_results{false};     // Results wait until this is false again.
  std::atomic<bool> reverse_results{false};  // Of what is waiting, the last chunk goes first.
  std::atomic<bool> silent{false};           // Receives and says nothing.
  std::atomic<bool> reads_nothing{false};    // Answers requests and chunks as if not readable.
  std::atomic<std::uint32_t> dimensions{32};
  std::atomic<std::uint32_t> minor{protocol::kVersionMinor};  // What its hello says.
  std::atomic<char> fingerprint{'f'};                         // All digits of it.
  std::atomic<bool> refuse_specs{false};  // Jobs are refused as INVALID_ARGUMENT.

 private:
  struct Job {
    std::string id;
    protocol::OpenJob open;
    protocol::JobState state = protocol::JobState::kOpen;
    std::map<std::uint32_t, protocol::ResultBlock> results;  // Accepted, not delivered.
    std::map<std::uint32_t, std::uint32_t> delivered;        // chunk -> items
    std::map<std::uint32_t, protocol::ChunkDigest> digests;
    std::map<std::uint32_t, bool> sent;  // To the peer at hand.
    std::optional<std::uint32_t> chunks_total;
    std::string peer;
  };
  void run(const std::stop_token& stop);
  void handle(const std::string& peer, protocol::Message message);
  void open_job(const std::string& peer, const protocol::OpenJob& open);
  void take_chunk(const std::string& peer, protocol::SubmitChunk chunk);
  void send_results();
  void end_if_done(Job& job);
  void answer_embed(const std::string& peer, const protocol::EmbedRequest& request);
  protocol::ResultBlock embed(const protocol::ItemBlock& items, const protocol::EmbedSpec& spec);
  protocol::JobProgress progress(const Job& job) const;
  Job* job_with_id(const std::string& id);
  void send(const std::string& peer, protocol::Message message);

  net::Context context_;
  std::string address_ = "tcp://127.0.0.1:*";
  std::uint64_t epoch_ = 0;

  mutable std::mutex mutex_;  // Guards what follows.
  Counts counts_;
  std::map<std::string, Job> jobs_;  // By key.
  std::uint32_t jobs_made_ = 0;

  std::unique_ptr<net::RouterSocket> socket_;  // The thread's, except between stop and start.
  std::jthread thread_;
};

}  // namespace tessera::test
