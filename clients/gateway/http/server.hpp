#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clients/gateway/http/router.hpp"
#include "clients/gateway/http/transport.hpp"

namespace tessera::gateway::http {

struct Limits {
  std::size_t head_bytes = 32U << 10;
  std::size_t body_bytes = 32U << 20;           // Of bodies that are taken whole.
  std::chrono::milliseconds head_time{10'000};  // From the first byte to the end of the head.
  // For a body's bytes, beside a second for every 16 KiB.
  std::chrono::milliseconds body_time{30'000};
  std::chrono::milliseconds idle_time{75'000};   // Between two requests of a connection.
  std::chrono::milliseconds write_time{60'000};  // Until the client takes another 64 KiB.
};

// Bytes of all bodies and answers that a process holds, over all its loops: what one client may do
// many could do at once.
struct HeldBytes {
  std::atomic<std::size_t> now = 0;
  std::size_t max = 1U << 30;
};

// What happened to a request, for logs and metrics.
struct Finished {
  const Request* request = nullptr;
  std::string_view route;  // Its pattern; empty when there was none.
  Family family = Family::kPlain;
  int status = 0;
  std::uint64_t bytes_in = 0;   // Of the body.
  std::uint64_t bytes_out = 0;  // Of the body.
  std::chrono::microseconds took{0};
  bool complete = false;  // Whether the client got all of it.
};

// What the application says to the server; called on the loop's thread.
struct Hooks {
  // Whether the request may go on to its route, before its body is read; sets request.caller.
  std::function<std::optional<Problem>(Request&, const Route&)> admit;
  // Whether it may be looked at at all, whatever its path: Host and Origin.
  std::function<std::optional<Problem>(const Request&)> screen;
  std::function<Response(Family, const Problem&)> respond_to_problem;
  std::function<void(const Finished&)> finished;
};

class Connection;

// The connections of one loop. All on its thread, but for the constructor.
class Server {
 public:
  // `held` and `tls`, which may be null, outlive the server.
  Server(Loop& loop, Router router, Hooks hooks, const Limits& limits, HeldBytes& held,
         TlsContext* tls);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Takes over an accepted descriptor; `closed` is called once when its connection is gone.
  void adopt(int fd, std::string peer, std::function<void()> closed);
  // Connections without a request are closed now, the others after their answer.
  void drain();
  std::size_t connections() const { return connections_.size(); }
  std::size_t open_requests() const { return open_requests_; }
  void close_all();

  // For Connection.
  Loop& loop() { return loop_; }
  const Router& router() const { return router_; }
  const Hooks& hooks() const { return hooks_; }
  const Limits& limits() const { return limits_; }
  bool draining() const { return draining_; }
  HeldBytes& held() { return held_; }
  const std::string& date();  // Of the response header, renewed each second.
  void forget(const std::shared_ptr<Connection>& connection);
  void count_request(int change) { open_requests_ += static_cast<std::size_t>(change); }

 private:
  void sweep_from(std::size_t begin);

  Loop& loop_;
  const Router router_;
  const Hooks hooks_;
  const Limits limits_;
  HeldBytes& held_;
  TlsContext* const tls_;
  std::vector<std::shared_ptr<Connection>> connections_;  // Each knows its place.
  bool sweeping_ = false;
  std::size_t open_requests_ = 0;
  bool draining_ = false;
  std::string date_;
  std::time_t date_second_ = 0;
};

}  // namespace tessera::gateway::http
