#include "clients/gateway/http/connection.hpp"

#include <algorithm>

#include "clients/gateway/http/request_id.hpp"
#include "common/check.hpp"

namespace tessera::gateway::http {

using std::chrono::microseconds;

namespace {

constexpr std::size_t kFirstRead = 4U << 10;  // So that idle connections hold little.
constexpr std::size_t kReadMax = 64U << 10;
constexpr std::size_t kPartMax = 64U << 10;
constexpr std::size_t kBodyBytesPerSecond = 16U << 10;
constexpr std::size_t kUnwantedBodyMax = 64U << 10;

}  // namespace

Connection::Connection(Server& server, std::unique_ptr<Transport> transport, std::string peer,
                       std::function<void()> closed)
    : server_(server),
      transport_(std::move(transport)),
      peer_(std::move(peer)),
      on_closed_(std::move(closed)) {}

Connection::~Connection() = default;

void Connection::start() {
  deadline_ = Clock::now() + server_.limits().head_time;
  transport_->handshake([self = shared_from_this()](Transport::Outcome outcome) {
    if (!outcome.ok) {
      self->close();
    } else if (!self->closed()) {
      self->next_request();
    }
  });
}

void Connection::close() {
  if (closed()) {
    return;
  }
  const auto self = shared_from_this();
  const bool unfinished = exchange_ != nullptr;
  if (unfinished) {
    finish(false);
  }
  stage_ = Stage::kClosed;
  deadline_ = Clock::time_point::max();
  transport_->close();
  response_ = {};
  if (want_part_) {
    give_part({.kind = Part::Kind::kFailed, .data = {}});
  }
  server_.forget(self);
  if (on_closed_) {
    std::exchange(on_closed_, nullptr)();
  }
}

void Connection::on_drain() {
  if (stage_ == Stage::kIdle) {
    close();
  }
}

void Connection::on_deadline() {
  deadline_ = Clock::time_point::max();
  const bool in_head = stage_ == Stage::kHead;
  if (!continuing_ && (in_head || stage_ == Stage::kBody || stage_ == Stage::kHandling)) {
    fail_request({.status = 408,
                  .code = "request_timeout",
                  .message = std::string("the request's ") + (in_head ? "head" : "body") +
                             " did not arrive in time",
                  .param = {}});
  } else {
    close();
  }
}

// Answers in the handler's place, which learns that its body has failed.
void Connection::fail_request(const Problem& problem) {
  const auto want = std::exchange(want_part_, nullptr);
  body_done_ = false;  // The rest of the request may still come.
  if (exchange_) {
    exchange_->end();
  }
  refuse(family_, problem);
  if (want) {
    want({.kind = Part::Kind::kFailed, .data = {}});
  }
}

// reading

void Connection::next_request() {
  parser_.emplace(RequestParser::Limits{.head_bytes = server_.limits().head_bytes});
  in_.erase(0, at_);
  filled_ -= at_;
  at_ = 0;
  if (in_.size() > 2 * kFirstRead && filled_ < kFirstRead) {
    in_.resize(filled_);
    in_.shrink_to_fit();
  }
  stage_ = Stage::kIdle;
  deadline_ = Clock::now() + server_.limits().idle_time;
  if (filled_ == 0) {
    if (server_.draining()) {
      return close();
    }
    return read_more();
  }
  // Requests that were sent ahead take their turns among those of other connections.
  server_.loop().post([self = shared_from_this()] {
    if (!self->closed()) {
      self->on_bytes();
    }
  });
}

void Connection::read_more() {
  CHECK(!reading_);
  if (at_ > 0) {
    in_.erase(0, at_);
    filled_ -= at_;
    at_ = 0;
  }
  const bool in_body = stage_ == Stage::kBody || stage_ == Stage::kHandling;
  const std::size_t room = in_body ? kReadMax : std::clamp(filled_, kFirstRead, kReadMax);
  if (in_.size() - filled_ < room / 4) {
    in_.resize(filled_ + room);
  }
  reading_ = true;
  transport_->read(std::span(in_).subspan(filled_),
                   [self = shared_from_this()](Transport::Outcome outcome) {
                     self->reading_ = false;
                     self->on_read(outcome);
                   });
}

void Connection::on_read(Transport::Outcome outcome) {
  if (closed()) {
    return;
  }
  if (stage_ == Stage::kWriting && outcome.ok) {  // A refusal did not wait for this read.
    filled_ += outcome.bytes;
    return;
  }
  if (!outcome.ok || outcome.bytes == 0) {
    return close();
  }
  filled_ += outcome.bytes;
  if (stage_ == Stage::kLingering) {
    at_ = filled_;
    return read_more();
  }
  on_bytes();
}

void Connection::on_bytes() {
  if (stage_ == Stage::kIdle) {
    stage_ = Stage::kHead;
    deadline_ = Clock::now() + server_.limits().head_time;
  }
  if (stage_ == Stage::kHead) {
    on_head();
  } else if (stage_ == Stage::kBody) {
    bytes_came();
    on_body_bytes();
  } else if (stage_ == Stage::kHandling) {
    bytes_came();
    pump_part();
  }
}

void Connection::on_head() {
  std::size_t used = 0;
  const auto state = parser_->read_head(unread(), used);
  if (state == RequestParser::State::kNeedMore) {
    return read_more();
  }
  if (state == RequestParser::State::kBad) {
    body_done_ = false;  // Nobody knows where the next request begins.
    return refuse(Family::kPlain, parser_->problem());
  }
  at_ += used;
  dispatch();
}

void Connection::dispatch() {
  server_.count_request(1);
  exchange_ = std::make_shared<ConnectionExchange>(server_.loop(), weak_from_this());
  Request& request = exchange_->request();
  request = std::move(parser_->request());
  request.arrived = Clock::now();
  request.peer = peer_;
  request.id = request_id_for(request.headers.get("x-request-id"));
  const auto& facts = parser_->facts();
  keep_ = facts.keep_alive && !server_.draining();
  body_done_ = !facts.has_body;
  continue_due_ = facts.expects_continue && facts.has_body;
  body_bytes_ = 0;
  body_waited_ = microseconds(0);
  route_ = nullptr;
  family_ = Family::kPlain;
  if (!parse_target(request)) {
    return refuse(family_, {.status = 400,
                            .code = "bad_request",
                            .message = "the request's target is not a path",
                            .param = {}});
  }
  const Router::Match match = server_.router().find(request);
  family_ = match.family;
  if (auto problem = server_.hooks().screen(request)) {
    return refuse(family_, *problem);
  }
  if (match.route == nullptr) {
    return answer_without_route(match);
  }
  route_ = match.route;
  auto problem = server_.hooks().admit(request, *route_);
  if (!problem) {
    problem = begin_body();
  }
  if (problem) {
    return refuse(family_, *problem);
  }
  if (route_->body == Route::Body::kStreamed || body_done_) {
    return handle();
  }
  stage_ = Stage::kBody;
  on_body_bytes();
}

void Connection::answer_without_route(const Router::Match& match) {
  const Request& request = exchange_->request();
  if (request.method == Method::kOptions && (!match.allowed.empty() || request.path == "*")) {
    Response response{.status = 204};
    response.headers.add("allow", match.allowed.empty() ? "GET, HEAD, POST, DELETE, OPTIONS"
                                                        : match.allowed + ", OPTIONS");
    return respond(std::move(response));
  }
  if (match.allowed.empty()) {
    return refuse(family_,
                  {.status = 404,
                   .code = "not_found",
                   .message = "there is no route " + std::string(to_string(request.method)) + " " +
                              request.path.substr(0, 200),
                   .param = {}});
  }
  Response response = server_.hooks().respond_to_problem(
      family_, {.status = 405,
                .code = "method_not_allowed",
                .message = request.path.substr(0, 200) + " takes " + match.allowed,
                .param = {}});
  response.headers.add("allow", match.allowed + ", OPTIONS");
  respond(std::move(response));
}

// bodies

std::optional<Problem> Connection::begin_body() {
  const auto& facts = parser_->facts();
  if (!facts.has_body || route_->body == Route::Body::kStreamed) {
    return std::nullopt;
  }
  const std::size_t limit =
      route_->body == Route::Body::kNone ? kUnwantedBodyMax : server_.limits().body_bytes;
  if (facts.length.value_or(0) > limit) {
    return Problem{.status = 413,
                   .code = "body_too_large",
                   .message = "the body has " + std::to_string(*facts.length) +
                              " bytes; this route takes " + std::to_string(limit),
                   .param = {}};
  }
  exchange_->request().body.reserve(facts.length.value_or(0) + 64);  // simdjson reads beyond.
  return std::nullopt;
}

// The client's time for its body runs only while we wait for it.
void Connection::wait_for_body_bytes() {
  wait_began_ = Clock::now();
  const auto allowed = microseconds(server_.limits().body_time) +
                       microseconds(body_bytes_ * 1'000'000 / kBodyBytesPerSecond);
  deadline_ = wait_began_ + allowed - body_waited_;
  if (continue_due_ && unread().empty()) {
    continue_due_ = false;
    continuing_ = true;
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    transport_->write(kContinue, {}, [self = shared_from_this()](Transport::Outcome outcome) {
      self->continuing_ = false;
      if (!outcome.ok) {
        self->close();
      } else if (!self->closed()) {
        self->read_more();
      }
    });
    return;
  }
  read_more();
}

void Connection::bytes_came() {
  body_waited_ += std::chrono::duration_cast<microseconds>(Clock::now() - wait_began_);
  deadline_ = Clock::time_point::max();
}

void Connection::on_body_bytes() {
  std::string& body = exchange_->request().body;
  const std::size_t limit =
      route_->body == Route::Body::kNone ? kUnwantedBodyMax : server_.limits().body_bytes;
  std::size_t used = 0;
  const auto state = parser_->read_body(unread(), used, body, limit + 1);
  at_ += used;
  body_bytes_ = body.size();
  if (state == RequestParser::State::kBad) {
    return refuse(family_, parser_->problem());
  }
  if (body.size() > limit) {
    return refuse(family_, {.status = 413,
                            .code = "body_too_large",
                            .message = "the body is longer than the " + std::to_string(limit) +
                                       " bytes that this route takes",
                            .param = {}});
  }
  hold(body.size());
  if (server_.held().now > server_.held().max) {
    return refuse(family_, {.status = 503,
                            .code = "overloaded",
                            .message = "the server holds as many requests as it may",
                            .param = {},
                            .retry_after = std::chrono::seconds(1),
                            .should_retry = true});
  }
  if (state == RequestParser::State::kNeedMore) {
    return wait_for_body_bytes();
  }
  body_done_ = true;
  handle();
}

// Counts `bytes` for this request instead of what was counted before.
void Connection::hold(std::size_t bytes) {
  server_.held().now += bytes - held_;
  held_ = bytes;
}

void Connection::handle() {
  stage_ = Stage::kHandling;
  deadline_ = Clock::time_point::max();
  route_->handler(exchange_);
}

void Connection::pump_part() {
  if (body_done_) {
    return give_part({.kind = Part::Kind::kEnd, .data = {}});
  }
  std::size_t used = 0;
  const auto state = parser_->read_body(unread(), used, part_, kPartMax);
  at_ += used;
  body_bytes_ += part_.size();
  if (state == RequestParser::State::kBad) {
    return fail_request(parser_->problem());
  }
  body_done_ = state == RequestParser::State::kDone;
  if (!part_.empty()) {
    return give_part({.kind = Part::Kind::kData, .data = std::exchange(part_, {})});
  }
  if (body_done_) {
    return give_part({.kind = Part::Kind::kEnd, .data = {}});
  }
  wait_for_body_bytes();
}

void Connection::give_part(Part part) {
  const auto want = std::exchange(want_part_, nullptr);
  if (want) {
    want(std::move(part));
  }
}

}  // namespace tessera::gateway::http
