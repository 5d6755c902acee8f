#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "clients/gateway/http/request_parser.hpp"
#include "clients/gateway/http/router.hpp"
#include "clients/gateway/http/server.hpp"
#include "clients/gateway/http/transport.hpp"

namespace tessera::gateway::http {

// One client's connection: reads a request, has it handled, writes the answer, and begins anew.
// While a request is handled nothing is read but what its handler asks for, so a client that sends
// ahead waits in its own socket. On its loop's thread only; lives as long as something is under
// way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Server& server, std::unique_ptr<Transport> transport, std::string peer,
             std::function<void()> closed);
  ~Connection();
  void start();
  void close();
  void on_deadline();
  void on_drain();
  Clock::time_point deadline() const { return deadline_; }
  bool closed() const { return stage_ == Stage::kClosed; }
  // The server's index of it.
  std::size_t place() const { return place_; }
  void set_place(std::size_t place) { place_ = place; }

 private:
  friend class ConnectionExchange;
  enum class Stage : std::uint8_t {
    kHandshake,
    kIdle,  // Not a byte of the next request is there.
    kHead,
    kBody,      // Of a route that takes it whole.
    kHandling,  // The handler has it, and reads a streamed body where there is one.
    kWriting,
    kLingering,  // The answer is out, the rest of a refused body is thrown away.
    kClosed
  };
  using Part = Exchange::BodyPart;

  void next_request();
  void read_more();
  void on_read(Transport::Outcome outcome);
  void on_bytes();
  void on_head();
  void dispatch();
  std::optional<Problem> begin_body();
  void on_body_bytes();
  void handle();
  void refuse(Family family, const Problem& problem);
  void fail_request(const Problem& problem);
  void answer_without_route(const Router::Match& match);
  void pump_part();
  void give_part(Part part);
  void respond(Response response);
  std::string head_of(const Response& response);
  void write_next();
  void write(std::string_view first, std::string_view second);
  void on_written(Transport::Outcome outcome);
  void finish(bool complete);
  void linger();
  std::string_view unread() const { return std::string_view(in_).substr(at_, filled_ - at_); }
  void wait_for_body_bytes();
  void bytes_came();
  void hold(std::size_t bytes);

  Server& server_;
  std::unique_ptr<Transport> transport_;
  const std::string peer_;
  std::size_t place_ = 0;
  std::function<void()> on_closed_;
  Stage stage_ = Stage::kHandshake;
  Clock::time_point deadline_ = Clock::time_point::max();

  std::string in_;  // Its first filled_ bytes came, those before at_ are used.
  std::size_t at_ = 0;
  std::size_t filled_ = 0;
  bool reading_ = false;

  std::optional<RequestParser> parser_;
  std::shared_ptr<class ConnectionExchange> exchange_;
  const Route* route_ = nullptr;
  Family family_ = Family::kPlain;
  bool body_done_ = true;
  bool continue_due_ = false;  // The client waits for our word before it sends the body.
  bool continuing_ = false;    // That word is being written.
  std::uint64_t body_bytes_ = 0;
  std::chrono::microseconds body_waited_{0};
  Clock::time_point wait_began_;
  std::function<void(Part)> want_part_;
  std::string part_;

  Response response_;
  std::string head_;
  std::string slice_;
  std::string framed_;
  std::size_t held_ = 0;  // Counted in the server's HeldBytes.
  bool chunked_ = false;
  bool last_written_ = false;
  bool keep_ = true;
  std::uint64_t bytes_out_ = 0;
};

// What handlers see of a connection's request.
class ConnectionExchange : public Exchange {
 public:
  ConnectionExchange(Loop& loop, std::weak_ptr<Connection> connection)
      : loop_(loop), connection_(std::move(connection)) {}
  Request& request() override { return request_; }
  Loop& loop() override { return loop_; }
  void respond(Response response) override;
  void read_body(std::function<void(BodyPart)> part) override;
  bool alive() const override;
  // The connection has gone on: whatever the handler still says comes to nothing.
  void end() { connection_.reset(); }

 private:
  Loop& loop_;
  std::weak_ptr<Connection> connection_;
  Request request_;
};

}  // namespace tessera::gateway::http
