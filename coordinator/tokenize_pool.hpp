#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "common/net/zmq_socket.hpp"
#include "coordinator/core/events/events.hpp"
#include "coordinator/model_catalog.hpp"

namespace tessera::coordinator {

// Threads that turn texts into token ids, queries before bulk. Work and results cross threads by
// value; a result wakes the event loop. What waits is bounded by the core, which lets only so many
// items into work.
class TokenizePool {
 public:
  // `models` and `wake` must outlive this.
  TokenizePool(std::span<const CatalogEntry> models, int threads, const net::WakeUp& wake);
  ~TokenizePool();  // Drops what waits.

  void submit(Tokenise work);
  std::vector<TokensReady> take_results();

 private:
  void run(const std::stop_token& stop);
  TokensReady tokenise(Tokenise work, std::vector<EncodeScratch>& scratches) const;

  const std::span<const CatalogEntry> models_;
  const net::WakeUp& wake_;
  std::mutex mutex_;  // Guards waiting_ and results_.
  std::condition_variable_any not_empty_;
  std::array<std::deque<Tokenise>, 2> waiting_;  // By lane.
  std::vector<TokensReady> results_;
  std::vector<std::jthread> threads_;
};

}  // namespace tessera::coordinator
