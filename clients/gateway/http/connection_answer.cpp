#include "clients/gateway/http/connection.hpp"
#include "clients/gateway/http/request_id.hpp"
#include "common/check.hpp"

// The second half of Connection: from the answer to the end of the request.
namespace tessera::gateway::http {

using std::chrono::microseconds;

namespace {

constexpr std::chrono::milliseconds kLingerTime{2000};

}  // namespace

void Connection::refuse(Family family, const Problem& problem) {
  if (!exchange_) {
    server_.count_request(1);
    exchange_ = std::make_shared<ConnectionExchange>(server_.loop(), weak_from_this());
    exchange_->request() = std::move(parser_->request());
    exchange_->request().arrived = Clock::now();
    exchange_->request().peer = peer_;
    exchange_->request().id = request_id_for({});
  }
  respond(server_.hooks().respond_to_problem(family, problem));
}

std::string Connection::head_of(const Response& response) {
  const Request& request = exchange_->request();
  std::string head;
  head.reserve(512);
  head += "HTTP/1.1 " + std::to_string(response.status) + " ";
  head += reason_of(response.status);
  const auto field = [&](std::string_view name, std::string_view value) {
    head += "\r\n";
    head += name;
    head += ": ";
    head += value;
  };
  field("date", server_.date());
  field("server", "tessera");
  field("x-request-id", request.id);
  const bool bodiless = response.status == 204 || response.status == 304;
  if (!bodiless) {
    field("content-type", response.content_type);
    const auto size = response.source ? response.source->size()
                                      : std::optional<std::uint64_t>(response.body.size());
    chunked_ = !size && !request.http_1_0;
    if (size) {
      field("content-length", std::to_string(*size));
    } else if (chunked_) {
      field("transfer-encoding", "chunked");
    } else {
      keep_ = false;  // The end of an HTTP/1.0 answer of unknown length is the connection's.
    }
  }
  for (const auto& [name, value] : response.headers.all()) {
    field(name, value);
  }
  if (!keep_ || request.http_1_0) {
    field("connection", keep_ ? "keep-alive" : "close");
  }
  head += "\r\n\r\n";
  return head;
}

void Connection::respond(Response response) {
  stage_ = Stage::kWriting;
  want_part_ = nullptr;
  response_ = std::move(response);
  keep_ = keep_ && body_done_ && !server_.draining();
  head_ = head_of(response_);
  bytes_out_ = 0;
  last_written_ = false;
  if (exchange_->request().method == Method::kHead || response_.status == 204 ||
      response_.status == 304) {
    response_.source.reset();
    response_.body.clear();
  }
  if (!response_.source) {
    last_written_ = true;
    bytes_out_ = response_.body.size();
    return write(head_, response_.body);
  }
  hold(response_.source->held());
  response_.source->on_wake([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self && self->stage_ == Stage::kWriting) {
      self->write_next();
    }
  });
  write_next();
}

void Connection::write_next() {
  slice_.clear();
  const auto state = response_.source->next(slice_);
  if (state == BodySource::State::kFail) {
    return close();
  }
  last_written_ = state == BodySource::State::kEnd;
  bytes_out_ += slice_.size();
  if (state == BodySource::State::kWait && slice_.empty() && head_.empty()) {
    deadline_ = Clock::time_point::max();  // Nothing to write, nobody to blame.
    return;
  }
  framed_ = std::exchange(head_, {});
  if (!chunked_) {
    return write(framed_, slice_);
  }
  if (!slice_.empty()) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    std::string size;
    for (std::size_t n = slice_.size(); n > 0; n /= 16) {
      size.insert(size.begin(), kDigits[n % 16]);
    }
    framed_ += size + "\r\n";
    slice_ += "\r\n";
  }
  if (last_written_) {
    slice_ += "0\r\n\r\n";
  }
  write(framed_, slice_);
}

void Connection::write(std::string_view first, std::string_view second) {
  deadline_ = Clock::now() + server_.limits().write_time;
  transport_->write(first, second, [self = shared_from_this()](Transport::Outcome outcome) {
    self->on_written(outcome);
  });
}

void Connection::on_written(Transport::Outcome outcome) {
  if (closed()) {
    return;
  }
  if (!outcome.ok) {
    return close();
  }
  if (!last_written_) {
    return write_next();
  }
  finish(true);
  if (keep_) {
    return next_request();
  }
  linger();
}

void Connection::finish(bool complete) {
  Request& request = exchange_->request();
  server_.hooks().finished(
      {.request = &request,
       .route = route_ != nullptr ? std::string_view(route_->pattern) : std::string_view(),
       .family = family_,
       .status = stage_ == Stage::kWriting ? response_.status : 0,
       .bytes_in = body_bytes_,
       .bytes_out = bytes_out_,
       .took = std::chrono::duration_cast<microseconds>(Clock::now() - request.arrived),
       .complete = complete});
  server_.count_request(-1);
  hold(0);
  exchange_->end();
  exchange_.reset();
  response_ = {};
  slice_.clear();
  slice_.shrink_to_fit();
}

// A close with unread bytes makes the kernel send a reset, which can take the answer with it.
void Connection::linger() {
  transport_->end_writing();
  stage_ = Stage::kLingering;
  deadline_ = Clock::now() + kLingerTime;
  at_ = filled_;
  if (!reading_) {
    read_more();
  }
}

void ConnectionExchange::respond(Response response) {
  if (const auto connection = connection_.lock(); connection && !connection->closed()) {
    CHECK(connection->stage_ == Connection::Stage::kHandling);
    connection->respond(std::move(response));
  }
}

void ConnectionExchange::read_body(std::function<void(BodyPart)> part) {
  const auto connection = connection_.lock();
  if (!connection || connection->closed()) {
    return part({.kind = BodyPart::Kind::kFailed, .data = {}});
  }
  CHECK(connection->stage_ == Connection::Stage::kHandling && !connection->want_part_);
  connection->want_part_ = std::move(part);
  // From a turn of its own: a handler that reads in a loop must not call itself ever deeper.
  loop_.post([connection] {
    if (!connection->closed() && connection->want_part_) {
      connection->pump_part();
    }
  });
}

bool ConnectionExchange::alive() const {
  const auto connection = connection_.lock();
  return connection && !connection->closed();
}

}  // namespace tessera::gateway::http
