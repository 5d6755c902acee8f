#include "common/net/zmq_socket.hpp"

#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <unordered_map>
#include <zmq.hpp>

#ifdef __SANITIZE_THREAD__
// libzmq is not built with the sanitizer: it synchronises its threads by atomics that are not seen.
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libzmq.so\nrace:libzmq.so\n";
}
#endif

namespace tessera::net {
namespace {

constexpr int kReconnectMs = 100;
constexpr int kReconnectMsMax = 5000;
constexpr int kHandshakeMsMax = 10'000;
constexpr std::int64_t kMessageBytesMax =
    static_cast<std::int64_t>(protocol::kPayloadBytesMax + protocol::kHeaderBytesMax);
// Below this size libzmq copies into its send batch anyway, so a hand-over would only cost.
constexpr std::size_t kZeroCopyBytesMin = 8192;

std::string random_routing_id() {
  std::array<char, 16> bytes{};
  CHECK(getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  bytes[0] = static_cast<char>(bytes[0] | 1);  // A leading zero byte is ZeroMQ's own.
  return {bytes.data(), bytes.size()};
}

// Bytes that ZeroMQ holds for a peer. Shared with its messages, which are freed on its thread once
// the network has them or the peer is gone.
using Held = std::shared_ptr<std::atomic<std::size_t>>;

class HandedOver {
 public:
  HandedOver(protocol::Bytes bytes, Held held) : bytes_(std::move(bytes)), held_(std::move(held)) {
    if (held_) {
      held_->fetch_add(bytes_.size());
    }
  }
  ~HandedOver() {
    if (held_) {
      held_->fetch_sub(bytes_.size());
    }
  }
  HandedOver(const HandedOver&) = delete;
  HandedOver& operator=(const HandedOver&) = delete;
  protocol::Bytes& bytes() { return bytes_; }

 private:
  protocol::Bytes bytes_;
  Held held_;  // None for a DEALER.
};

zmq::message_t to_message(protocol::Bytes bytes, const Held& held) {
  if (bytes.size() < kZeroCopyBytesMin) {
    return {bytes.data(), bytes.size()};
  }
  auto owner = std::make_unique<HandedOver>(std::move(bytes), held);
  zmq::message_t message(
      owner->bytes().data(), owner->bytes().size(),
      [](void*, void* hint) { delete static_cast<HandedOver*>(hint); }, owner.get());
  (void)owner.release();  // The message's free function deletes it, on ZeroMQ's thread.
  return message;
}

std::size_t counted_bytes(const protocol::Frames& frames) {
  const auto counted = [](const protocol::Bytes& bytes) {
    return bytes.size() < kZeroCopyBytesMin ? 0 : bytes.size();
  };
  return counted(frames.header) + counted(frames.payload);
}

protocol::Bytes to_bytes(const zmq::message_t& message) {
  const auto* data = message.data<std::byte>();
  return {data, data + message.size()};
}

}  // namespace

struct Context::Impl {
  explicit Impl(int io_threads) : context(io_threads) {}
  zmq::context_t context;
};

Context::Context(int io_threads) : impl_(std::make_unique<Impl>(io_threads)) {}
Context::~Context() = default;

struct Socket::Impl {
  Impl(zmq::context_t& context, zmq::socket_type type) : socket(context, type) {}

  // The counter of a peer, if its messages are counted.
  Held held_for(const std::string& peer) {
    if (send_queue_bytes == 0) {
      return nullptr;
    }
    if (held.size() >= purge_at) {
      std::erase_if(held, [](const auto& entry) { return entry.second->load() == 0; });
      purge_at = std::max(kPurgeMin, 2 * held.size());
    }
    Held& found = held[peer];
    if (!found) {
      found = std::make_shared<std::atomic<std::size_t>>(0);
    }
    return found;
  }

  static constexpr std::size_t kPurgeMin = 1024;

  zmq::socket_t socket;
  zmq::socket_t monitor;  // DEALER: tells of broken connections.
  std::size_t send_queue_bytes = 0;
  std::unordered_map<std::string, Held> held;  // By peer.
  std::size_t purge_at = kPurgeMin;
};

Socket::Socket(Context& context, Kind kind, const SocketOptions& options)
    : is_router_(kind == Kind::kRouter) {
  const auto type = is_router_ ? zmq::socket_type::router : zmq::socket_type::dealer;
  impl_ = std::make_unique<Impl>(context.impl_->context, type);
  zmq::socket_t& socket = impl_->socket;
  socket.set(zmq::sockopt::rcvhwm, 0);
  socket.set(zmq::sockopt::sndhwm, options.send_queue_messages);
  socket.set(zmq::sockopt::linger, options.linger_ms);
  socket.set(zmq::sockopt::maxmsgsize, kMessageBytesMax);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::tcp_keepalive_idle, 30);
  socket.set(zmq::sockopt::tcp_keepalive_intvl, 10);
  socket.set(zmq::sockopt::handshake_ivl, kHandshakeMsMax);
  socket.set(zmq::sockopt::reconnect_ivl, kReconnectMs);
  socket.set(zmq::sockopt::reconnect_ivl_max, kReconnectMsMax);
  socket.set(zmq::sockopt::backlog, 1024);
  if (is_router_) {
    socket.set(zmq::sockopt::router_mandatory, 1);
    impl_->send_queue_bytes = options.send_queue_bytes;
    return;
  }
  const std::string routing_id = random_routing_id();
  socket.set(zmq::sockopt::routing_id, routing_id);
  // Names are unique within a context, and so are routing ids.
  std::string name = "inproc://disconnects-";
  for (const char c : routing_id) {
    name += std::to_string(static_cast<unsigned char>(c)) + ".";
  }
  CHECK(zmq_socket_monitor(socket.handle(), name.c_str(), ZMQ_EVENT_DISCONNECTED) == 0);
  impl_->monitor = zmq::socket_t(context.impl_->context, zmq::socket_type::pair);
  impl_->monitor.set(zmq::sockopt::rcvhwm, 0);  // An owner that does not look must block nobody.
  impl_->monitor.set(zmq::sockopt::linger, 0);
  impl_->monitor.connect(name);
}

Socket::~Socket() = default;
Socket::Socket(Socket&&) noexcept = default;
Socket& Socket::operator=(Socket&&) noexcept = default;

int Socket::fd() const { return impl_->socket.get(zmq::sockopt::fd); }

void Socket::bind(const std::string& endpoint) {
  try {
    impl_->socket.bind(endpoint);
  } catch (const zmq::error_t& e) {
    throw FatalError("cannot listen on " + endpoint + ": " + e.what());
  }
  endpoint_ = impl_->socket.get(zmq::sockopt::last_endpoint);
}

void Socket::connect(const std::string& endpoint) {
  try {
    impl_->socket.connect(endpoint);
  } catch (const zmq::error_t& e) {
    throw FatalError("cannot connect to " + endpoint + ": " + e.what());
  }
}

SendStatus Socket::send_frames(const std::string* peer, protocol::Frames frames) {
  using zmq::send_flags;
  zmq::socket_t& socket = impl_->socket;
  const Held held = peer == nullptr ? nullptr : impl_->held_for(*peer);
  if (held && held->load() > 0 && held->load() + counted_bytes(frames) > impl_->send_queue_bytes) {
    return SendStatus::kFull;
  }
  const bool has_payload = !frames.payload.empty();
  zmq::message_t header = to_message(std::move(frames.header), held);
  const auto more = has_payload ? send_flags::sndmore : send_flags::none;
  try {
    // Whether a message is taken is decided at its first frame; the rest of it always follows.
    if (peer != nullptr) {
      zmq::message_t address(peer->data(), peer->size());
      if (!socket.send(address, send_flags::dontwait | send_flags::sndmore)) {
        return SendStatus::kFull;
      }
    }
    if (!socket.send(header, send_flags::dontwait | more)) {
      return SendStatus::kFull;
    }
  } catch (const zmq::error_t& e) {
    if (e.num() == EHOSTUNREACH) {
      return SendStatus::kUnreachable;
    }
    throw;
  }
  if (has_payload) {
    zmq::message_t payload = to_message(std::move(frames.payload), held);
    CHECK(socket.send(payload, send_flags::dontwait));
  }
  return SendStatus::kSent;
}

bool Socket::receive(Incoming& message) {
  message = {};
  zmq::socket_t& socket = impl_->socket;
  zmq::message_t frame;
  std::size_t index = is_router_ ? 0 : 1;  // 0 address, 1 header, 2 payload
  do {
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) {
      return false;
    }
    if (index == 0) {
      message.peer = frame.to_string();
    } else if (index == 1) {
      message.header = to_bytes(frame);
    } else if (index == 2) {
      message.payload = to_bytes(frame);
    } else {
      message.malformed = true;
    }
    ++index;
  } while (frame.more());
  message.malformed = message.malformed || index < 2;
  return true;
}

RouterSocket::RouterSocket(Context& context, const std::string& endpoint,
                           const SocketOptions& options)
    : Socket(context, Kind::kRouter, options) {
  bind(endpoint);
}

DealerSocket::DealerSocket(Context& context, const std::string& endpoint,
                           const SocketOptions& options)
    : Socket(context, Kind::kDealer, options) {
  connect(endpoint);
}

bool DealerSocket::take_disconnected() {
  bool disconnected = false;
  zmq::message_t frame;
  while (impl().monitor.recv(frame, zmq::recv_flags::dontwait)) {
    disconnected = true;  // The one kind of event that was asked for, and its address.
  }
  return disconnected;
}

void PollSet::wait(int timeout_ms) {
  std::vector<zmq::pollitem_t> items;
  items.reserve(2 * sockets.size() + descriptors.size());
  for (Socket* socket : sockets) {
    items.push_back({socket->impl_->socket.handle(), 0, ZMQ_POLLIN, 0});
    if (socket->impl_->monitor) {
      items.push_back({socket->impl_->monitor.handle(), 0, ZMQ_POLLIN, 0});
    }
  }
  const std::size_t first_descriptor = items.size();
  for (const Descriptor& d : descriptors) {
    const int events = (d.want_read ? ZMQ_POLLIN : 0) | (d.want_write ? ZMQ_POLLOUT : 0);
    items.push_back({nullptr, d.fd, static_cast<short>(events), 0});
  }
  try {
    zmq::poll(items, std::chrono::milliseconds(timeout_ms));
  } catch (const zmq::error_t& e) {
    if (e.num() != EINTR) {
      throw;
    }
    return;  // A signal: the caller looks at its stop flag; readiness is asked for again.
  }
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    const short ready = items[first_descriptor + i].revents;
    descriptors[i].readable = (ready & (ZMQ_POLLIN | ZMQ_POLLERR)) != 0;
    descriptors[i].writable = (ready & ZMQ_POLLOUT) != 0;
  }
}

WakeUp::WakeUp() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) {
    throw FatalError("cannot make an eventfd: too many open files?");
  }
}

WakeUp::~WakeUp() { close(fd_); }

void WakeUp::notify() const {
  const std::uint64_t one = 1;
  (void)!write(fd_, &one, sizeof(one));  // Full means that a wake-up waits already.
}

void WakeUp::clear() const {
  std::uint64_t count = 0;
  (void)!read(fd_, &count, sizeof(count));
}

}  // namespace tessera::net
