#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/net/zmq_socket.hpp"

namespace tessera::bench {

// Blocks until the socket has a message; CHECKs that one comes within ten seconds.
protocol::Message receive(net::DealerSocket& socket);

// A worker that computes nothing: every vector is made from the first and last id of its sequence
// in no time, so that what is measured is everything around it.
class InstantWorker {
 public:
  InstantWorker(const std::string& address, protocol::WorkerHello hello);
  std::uint64_t sequences() const { return sequences_.load(); }

 private:
  void run(const std::stop_token& stop);
  const std::string address_;
  const protocol::WorkerHello hello_;
  std::atomic<std::uint64_t> sequences_ = 0;
  std::jthread thread_;
};

// A ROUTER that sends every frame back: what the sockets alone carry.
class Echo {
 public:
  Echo();
  const std::string& address() const { return router_.endpoint(); }

 private:
  void run(const std::stop_token& stop);
  net::Context context_;
  net::RouterSocket router_;
  std::jthread thread_;
};

}  // namespace tessera::bench
