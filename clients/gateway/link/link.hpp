#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "clients/gateway/http/loop.hpp"
#include "common/net/zmq_socket.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::gateway {

struct LinkOptions {
  std::string coordinator = "tcp://127.0.0.1:7400";
  std::string name = "tessera-gateway";
  std::chrono::milliseconds hello_every{1000};  // Also how old the models' worker counts may be.
  std::chrono::milliseconds silence_max{5000};
  // Questions wait so long for a coordinator that is away, then end in kUnavailable.
  std::chrono::milliseconds outage_wait{10'000};
};

// Why a question has no answer: an ErrorReply of the coordinator, or what the link says in its
// place (kUnavailable, kDeadlineExceeded), then with request_id 0.
using Answer = std::function<void(std::variant<protocol::Message, protocol::ErrorReply>)>;

// One loop's connection to the coordinator. Embed requests that are asked in one turn of the loop
// travel as one message. Every question ends in one call of its Answer, from a turn of its own.
// After a lost connection or a restarted coordinator what has no answer is asked again; refusals
// (RESOURCE_EXHAUSTED) are handed on, since HTTP clients know to come again themselves. On the
// loop's thread only.
class Link {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  Link(http::Loop& loop, net::Context& context, LinkOptions options);
  ~Link();  // Answers are not called any more.
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // The link sets request_id. `wait` is the request's deadline_ms, too, unless that is set.
  void embed(protocol::EmbedRequest request, std::chrono::milliseconds wait, Answer answer);
  // Any other question with a request_id and one answer: StatusRequest, MetricsRequest, records.
  // The second argument is the number that the message must carry.
  void ask(const std::function<protocol::Message(std::uint64_t)>& question,
           std::chrono::milliseconds wait, Answer answer);

  // Whether a coordinator answers at this moment, as far as is known.
  bool ready() const { return ready_; }
  // What its last hello said; nothing before the first.
  const std::optional<protocol::ServerHello>& hello() const { return hello_; }
  const protocol::ModelInfo* model(const std::string& name) const;  // Empty: the only one.
  std::size_t open_questions() const { return open_.size(); }
  std::uint64_t reconnects() const { return reconnects_; }
  std::uint64_t asked_again() const { return asked_again_; }

 private:
  struct Question {
    protocol::Message message;  // Kept until answered: it may have to be asked again.
    TimePoint deadline;
    Answer answer;
  };
  void watch();
  void receive_all();
  void handle(protocol::Message message);
  void on_hello(protocol::ServerHello hello);
  void settle(std::uint64_t id, std::variant<protocol::Message, protocol::ErrorReply> answer);
  void send_soon(std::uint64_t id);
  void flush();
  void send(protocol::Message message);
  void send_hello();
  void ask_all_again();
  void reconnect();
  void tick();
  void end_overdue(TimePoint now);

  http::Loop& loop_;
  net::Context& context_;
  const LinkOptions options_;
  std::unique_ptr<net::DealerSocket> socket_;
  std::unique_ptr<http::Loop::Watch> watch_;
  bool ready_ = false;
  std::optional<protocol::ServerHello> hello_;
  std::unordered_map<std::uint64_t, Question> open_;
  std::vector<std::uint64_t> to_send_;
  bool flush_waits_ = false;
  bool receive_waits_ = false;
  std::uint64_t next_id_ = 1;
  TimePoint last_heard_;
  TimePoint last_hello_;
  TimePoint away_since_;  // While not ready_.
  std::uint32_t silent_connects_ = 0;
  std::uint64_t reconnects_ = 0;
  std::uint64_t asked_again_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // For what the loop still holds.
};

}  // namespace tessera::gateway
