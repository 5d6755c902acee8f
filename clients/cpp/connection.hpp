#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "clients/cpp/client_options.hpp"
#include "clients/cpp/job_state.hpp"
#include "clients/cpp/request_table.hpp"
#include "common/net/zmq_socket.hpp"

namespace tessera::client {

// One connection to a coordinator. Its own thread owns the socket and does all sending, receiving,
// pinging and reconnecting; the functions below may be called from any thread. State lies behind
// one mutex, which is never held while waiting for the network.
class Connection {
 public:
  explicit Connection(ClientOptions options);
  ~Connection();  // Answers what is pending with kCancelled, then stops the thread.
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Waits until a coordinator has said hello; kUnavailable when none did in time, or its refusal.
  Result<protocol::ServerHello> wait_ready(std::chrono::milliseconds timeout);

  // Whether a coordinator answers at this moment, as far as is known.
  bool ready() const;

  std::uint64_t next_request_id();

  // Sends `message`, which carries `request_id`; sent again after reconnects. Timeout 0: none.
  std::future<RequestTable::Reply> call(std::uint64_t request_id, protocol::Message message,
                                        std::chrono::milliseconds timeout);

  // A job that this connection keeps open across reconnects until forget().
  std::shared_ptr<JobState> add_job(const protocol::OpenJob& open);
  void forget(const std::shared_ptr<JobState>& job);

  // Runs `action(outbox, now)` under the lock, then wakes the socket's thread.
  void with_state(const std::function<void(Outbox&, TimePoint)>& action);

  // Sleeps until `ready()` (evaluated under the lock) or the time is over; its last answer.
  bool wait(std::chrono::milliseconds timeout, const std::function<bool()>& ready);

 private:
  void run(const std::stop_token& stop);
  void receive_all();
  void handle(protocol::Message message, TimePoint now);
  void handle_hello(const protocol::ServerHello& hello, TimePoint now);
  void handle_error(const protocol::ErrorReply& error, TimePoint now);
  void handle_error_for_nobody(const Error& error);
  JobState* job_with_id(const std::string& job_id);
  void send_everything_again(TimePoint now);
  void keep_alive(TimePoint now);
  void say_hello();
  void reconnect(TimePoint now);
  void flush(TimePoint now);
  int poll_ms(TimePoint now) const;

  const ClientOptions options_;
  net::WakeUp wake_;
  net::Context context_;

  mutable std::mutex mutex_;  // Guards everything below except socket_.
  std::condition_variable changed_;
  std::uint64_t next_id_ = 1;
  bool ready_ = false;  // The coordinator of this socket has said hello.
  std::optional<protocol::ServerHello> hello_;
  std::string ledger_id_;         // Of the coordinator that was heard last,
  std::uint64_t term_seen_ = 0;   // and its highest term.
  std::optional<Error> refusal_;  // The coordinator will not serve this client at all.
  RequestTable requests_;
  std::vector<std::shared_ptr<JobState>> jobs_;
  Outbox outbox_;   // Sent when ready.
  Outbox control_;  // Hello, ping, pong: sent at once.
  TimePoint last_heard_;
  TimePoint last_ping_;
  TimePoint last_hello_;
  std::uint32_t silent_connects_ = 0;

  std::unique_ptr<net::DealerSocket> socket_;  // Owned by thread_.
  std::jthread thread_;                        // Last: stopped before the rest goes.
};

}  // namespace tessera::client
