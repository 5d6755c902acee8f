#include "clients/gateway/link/link.hpp"

#include <algorithm>

#include "common/log.hpp"
#include "common/net/receive.hpp"
#include "common/wire/codec.hpp"
#include "common/wire/embed_batch.hpp"

namespace tessera::gateway {

using std::chrono::milliseconds;
using Reply = std::variant<protocol::Message, protocol::ErrorReply>;

namespace {

constexpr milliseconds kTick{50};
constexpr int kMessagesPerTurn = 64;
constexpr std::size_t kTogetherBytesMax = 256U << 10;

Link::TimePoint now() { return std::chrono::steady_clock::now(); }

// The number of the question that a message answers; 0 for none.
std::uint64_t request_id_of(const protocol::Message& message) {
  return std::visit(
      [](const auto& m) -> std::uint64_t {
        if constexpr (requires { m.request_id; }) {
          return m.request_id;
        } else {
          return 0;
        }
      },
      message);
}

protocol::ErrorReply own_error(ErrorCode code, std::string message) {
  return {.code = code, .message = std::move(message), .retry_after_ms = 1000};
}

}  // namespace

Link::Link(http::Loop& loop, net::Context& context, LinkOptions options)
    : loop_(loop), context_(context), options_(std::move(options)) {
  away_since_ = now();
  reconnect();
  loop_.every(kTick, [this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) {
      tick();
    }
  });
}

Link::~Link() = default;

const protocol::ModelInfo* Link::model(const std::string& name) const {
  if (!hello_ || (name.empty() && hello_->models.size() != 1)) {
    return nullptr;
  }
  const auto found = std::ranges::find_if(
      hello_->models, [&](const auto& model) { return name.empty() || model.name == name; });
  return found == hello_->models.end() ? nullptr : &*found;
}

// asking

void Link::embed(protocol::EmbedRequest request, milliseconds wait, Answer answer) {
  if (request.deadline_ms == 0) {
    request.deadline_ms = static_cast<std::uint32_t>(wait.count());
  }
  ask(
      [&](std::uint64_t id) {
        request.request_id = id;
        return protocol::Message(std::move(request));
      },
      wait, std::move(answer));
}

void Link::ask(const std::function<protocol::Message(std::uint64_t)>& question, milliseconds wait,
               Answer answer) {
  const std::uint64_t id = next_id_++;
  // The coordinator keeps the deadline; ours is for one that says nothing.
  open_.emplace(id, Question{.message = question(id),
                             .deadline = now() + wait + milliseconds(500),
                             .answer = std::move(answer)});
  send_soon(id);
}

void Link::send_soon(std::uint64_t id) {
  to_send_.push_back(id);
  if (!flush_waits_) {
    flush_waits_ = true;
    loop_.at_end_of_turn([this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) {
        flush();
      }
    });
  }
}

void Link::flush() {
  flush_waits_ = false;
  if (!ready_) {
    to_send_.clear();  // The coordinator's hello has everything asked again.
    return;
  }
  std::vector<protocol::EmbedRequest> together;
  std::size_t bytes = 0;
  const auto send_together = [&] {
    if (!together.empty()) {
      send(protocol::pack(std::exchange(together, {})));
      bytes = 0;
    }
  };
  for (const std::uint64_t id : std::exchange(to_send_, {})) {
    const auto found = open_.find(id);
    if (found == open_.end()) {
      continue;
    }
    const auto* embed = std::get_if<protocol::EmbedRequest>(&found->second.message);
    if (embed == nullptr) {
      send(found->second.message);
      continue;
    }
    const std::size_t size = embed->items.payload.size() + 8 * embed->items.sizes.size();
    if (bytes + size > kTogetherBytesMax || together.size() == protocol::kBatchRequestsMax) {
      send_together();
    }
    bytes += size;
    together.push_back(*embed);
  }
  send_together();
}

void Link::send(protocol::Message message) {
  // The send queue has no bound; open questions have, by the connections that ask them.
  (void)socket_->send(protocol::encode(std::move(message)));
  if (!receive_waits_) {  // The socket's descriptor does not tell of what came meanwhile.
    receive_waits_ = true;
    loop_.at_end_of_turn([this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) {
        receive_waits_ = false;
        receive_all();
      }
    });
  }
}

// answers

void Link::receive_all() {
  net::Incoming incoming;
  for (int i = 0; i < kMessagesPerTurn; ++i) {
    if (!socket_->receive(incoming)) {
      return;
    }
    auto message = net::decode(incoming);
    if (message) {
      handle(std::move(*message));
    } else {
      log::warn("unreadable message from the coordinator: {}", message.error().message);
    }
  }
  loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) {
      receive_all();
    }
  });
}

void Link::handle(protocol::Message message) {
  last_heard_ = now();
  silent_connects_ = 0;
  if (auto* hello = std::get_if<protocol::ServerHello>(&message)) {
    on_hello(std::move(*hello));
  } else if (auto* replies = std::get_if<protocol::EmbedReplies>(&message)) {
    auto parts = protocol::unpack(std::move(*replies));
    if (!parts) {
      log::warn("unreadable message from the coordinator: {}", parts.error().message);
      return;
    }
    for (protocol::EmbedReply& part : *parts) {
      const std::uint64_t id = part.request_id;
      settle(id, protocol::Message(std::move(part)));
    }
  } else if (const auto* ping = std::get_if<protocol::Ping>(&message)) {
    send(protocol::Pong{ping->nonce});
  } else if (auto* error = std::get_if<protocol::ErrorReply>(&message)) {
    if (error->request_id == 0) {
      log::warn("the coordinator reports {}: {}", to_string(error->code), error->message);
    }
    const std::uint64_t id = error->request_id;
    settle(id, std::move(*error));
  } else {
    const std::uint64_t id = request_id_of(message);
    settle(id, std::move(message));
  }
}

void Link::on_hello(protocol::ServerHello hello) {
  if (hello.minor < protocol::kMinorWithMetrics) {
    if (!hello_) {
      log::error("the coordinator at {} is older than this gateway and cannot serve it",
                 options_.coordinator);
    }
    hello_ = std::move(hello);
    return;
  }
  const bool restarted = hello_ && hello_->epoch != hello.epoch;
  if (!ready_) {
    log::info("the coordinator at {} answers, leader term {}", options_.coordinator, hello.epoch);
  }
  const bool begin = !ready_ || restarted;
  ready_ = true;
  hello_ = std::move(hello);
  if (begin) {
    ask_all_again();
  }
}

void Link::settle(std::uint64_t id, Reply answer) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;  // Answered before, or too late.
  }
  const Answer deliver = std::move(found->second.answer);
  open_.erase(found);
  deliver(std::move(answer));
}

// keeping the connection

void Link::ask_all_again() {
  to_send_.clear();
  for (const auto& [id, question] : open_) {
    send_soon(id);
    ++asked_again_;
  }
}

void Link::send_hello() {
  last_hello_ = now();
  send(protocol::ClientHello{.client = options_.name, .tenant = {}});
}

// A fresh socket with a fresh routing id: answers meant for the old one can never mix in.
void Link::reconnect() {
  if (ready_) {
    away_since_ = now();
  }
  ready_ = false;
  watch_.reset();
  socket_ = std::make_unique<net::DealerSocket>(
      context_, options_.coordinator, net::SocketOptions{.send_queue_messages = 0, .linger_ms = 0});
  watch_ = loop_.watch_readable(socket_->fd(), [this] { receive_all(); });
  last_heard_ = now();
  send_hello();
}

void Link::tick() {
  const TimePoint moment = now();
  const auto silence_max = options_.silence_max * (1 + std::min(silent_connects_, 3U));
  if (socket_->take_disconnected() && ready_) {
    log::warn("the connection to the coordinator broke");
    ++reconnects_;
    reconnect();
  } else if (moment - last_heard_ > silence_max) {
    ++silent_connects_;
    ++reconnects_;
    reconnect();
  } else if (moment - last_hello_ > options_.hello_every) {
    send_hello();
  }
  receive_all();
  end_overdue(moment);
}

void Link::end_overdue(TimePoint moment) {
  const bool away = !ready_ && moment - away_since_ > options_.outage_wait;
  std::vector<std::uint64_t> late;
  for (const auto& [id, question] : open_) {
    if (away || question.deadline <= moment) {
      late.push_back(id);
    }
  }
  for (const std::uint64_t id : late) {
    settle(id, away ? own_error(ErrorCode::kUnavailable,
                                "no coordinator answers at " + options_.coordinator)
                    : own_error(ErrorCode::kDeadlineExceeded,
                                "the request was not answered before its deadline"));
  }
}

}  // namespace tessera::gateway
