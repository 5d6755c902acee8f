#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "clients/gateway/http/loop.hpp"

namespace tessera::gateway::http {

// "HOST:PORT" with a name, an IPv4 address or an [IPv6 address]; port 0 or * takes a free one.
struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
};
// Throws FatalError.
ListenAddress parse_listen_address(const std::string& text);
// Whether every address of the host is of the loopback interface. Throws FatalError.
bool is_loopback(const ListenAddress& address);

struct ListenLimits {
  std::size_t connections = 20'000;
  std::size_t per_client = 1'000;  // Connections from one address.
};

// Accepts connections on one address and counts them; what comes beyond a limit is told so and
// closed. Belongs to one loop's thread; throws FatalError when it cannot listen.
class Listener {
 public:
  using Accepted = std::function<void(int fd, std::string peer)>;
  Listener(Loop& loop, const ListenAddress& address, const ListenLimits& limits, Accepted accepted);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::uint16_t port() const { return port_; }
  void stop();                              // Refuses from now on.
  void on_closed(const std::string& peer);  // One of the accepted ones is gone.
  std::size_t open() const { return open_; }
  std::uint64_t turned_away() const { return turned_away_; }

 private:
  struct Socket {
    int fd = -1;
    std::unique_ptr<Loop::Watch> watch;
  };
  void accept_all(int listening);
  bool admit(int fd, const std::string& peer);

  Loop& loop_;
  const ListenLimits limits_;
  const Accepted accepted_;
  std::uint16_t port_ = 0;
  std::vector<Socket> sockets_;
  std::size_t open_ = 0;
  std::map<std::string, std::size_t> by_peer_;
  std::uint64_t turned_away_ = 0;
};

}  // namespace tessera::gateway::http
