#include "clients/gateway/http/listener.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "common/check.hpp"

namespace tessera::gateway::http {
namespace {

constexpr int kBacklog = 4096;
constexpr int kAcceptsPerTurn = 8;

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  const int error = getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), port.c_str(),
                                &hints, &found);
  if (error != 0) {
    throw FatalError("cannot listen on " + address.host + ": " + gai_strerror(error));
  }
  return {found, &freeaddrinfo};
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    return (ntohl(v4->sin_addr.s_addr) >> 24U) == 127;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
  return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

std::string text_of(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr, text.data(),
              text.size());
  } else {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr, text.data(),
              text.size());
  }
  return text.data();
}

std::uint16_t port_of(int fd) {
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) == 0);
  return ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&bound)->sin_port
                                          : reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port);
}

void set_port(sockaddr* address, std::uint16_t port) {
  if (address->sa_family == AF_INET) {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
  }
}

int open_socket(const addrinfo& address, const std::string& shown) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  const int on = 1;
  if (fd >= 0) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address.ai_family == AF_INET6) {
      setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
  }
  if (fd < 0 || bind(fd, address.ai_addr, address.ai_addrlen) != 0 || listen(fd, kBacklog) != 0) {
    const std::string why = std::strerror(errno);
    if (fd >= 0) {
      close(fd);
    }
    throw FatalError("cannot listen on " + shown + ": " + why);
  }
  return fd;
}

}  // namespace

ListenAddress parse_listen_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) {
    throw FatalError("an address to listen on is HOST:PORT, not " + text);
  }
  ListenAddress address{.host = text.substr(0, colon), .port = 0};
  if (address.host.starts_with('[') && address.host.ends_with(']')) {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  const std::string_view port = std::string_view(text).substr(colon + 1);
  if (port != "*") {
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
    if (error != std::errc() || end != port.data() + port.size() || port.empty()) {
      throw FatalError("the port to listen on is a number up to 65535, or *: " + text);
    }
  }
  return address;
}

bool is_loopback(const ListenAddress& address) {
  const Addresses found = resolve(address);
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next) {
    if (!is_loopback(one->ai_addr)) {
      return false;
    }
  }
  return true;
}

Listener::Listener(Loop& loop, const ListenAddress& address, const ListenLimits& limits,
                   Accepted accepted)
    : loop_(loop), limits_(limits), accepted_(std::move(accepted)), port_(address.port) {
  const Addresses found = resolve(address);
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next) {
    set_port(one->ai_addr, port_);  // All of a name's addresses get the same free port.
    const int fd = open_socket(*one, address.host + ":" + std::to_string(port_));
    port_ = port_of(fd);
    sockets_.push_back({.fd = fd, .watch = nullptr});
    sockets_.back().watch = loop_.watch_readable(fd, [this, fd] { accept_all(fd); });
  }
}

Listener::~Listener() { stop(); }

void Listener::stop() {
  for (Socket& socket : sockets_) {
    socket.watch.reset();
    close(socket.fd);
  }
  sockets_.clear();
}

void Listener::accept_all(int listening) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage from{};
    socklen_t length = sizeof(from);
    const int fd = accept4(listening, reinterpret_cast<sockaddr*>(&from), &length,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      return;  // None left; or no descriptors, which the next wake-up tries again.
    }
    std::string peer = text_of(from);
    if (admit(fd, peer)) {
      ++open_;
      ++by_peer_[peer];
      accepted_(fd, std::move(peer));
    }
  }
}

bool Listener::admit(int fd, const std::string& peer) {
  const auto found = by_peer_.find(peer);
  const bool client_full = found != by_peer_.end() && found->second >= limits_.per_client;
  if (!client_full && open_ < limits_.connections) {
    return true;
  }
  static constexpr std::string_view kClient =
      "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 1\r\n"
      "connection: close\r\n\r\n";
  static constexpr std::string_view kAll =
      "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\n"
      "connection: close\r\n\r\n";
  const std::string_view answer = client_full ? kClient : kAll;
  (void)!send(fd, answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
  close(fd);
  ++turned_away_;
  return false;
}

void Listener::on_closed(const std::string& peer) {
  --open_;
  const auto found = by_peer_.find(peer);
  if (found != by_peer_.end() && --found->second == 0) {
    by_peer_.erase(found);
  }
}

}  // namespace tessera::gateway::http
