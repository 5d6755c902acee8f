#include "clients/gateway/http/server.hpp"

#include <array>
#include <ctime>
#include <vector>

#include "clients/gateway/http/connection.hpp"

namespace tessera::gateway::http {
namespace {

constexpr std::chrono::milliseconds kSweep{100};

}  // namespace

Server::Server(Loop& loop, Router router, Hooks hooks, const Limits& limits, HeldBytes& held,
               TlsContext* tls)
    : loop_(loop),
      router_(std::move(router)),
      hooks_(std::move(hooks)),
      limits_(limits),
      held_(held),
      tls_(tls) {
  loop_.every(kSweep, [this] { sweep(); });
}

Server::~Server() { close_all(); }

void Server::adopt(int fd, std::string peer, std::function<void()> closed) {
  auto transport = tls_ != nullptr ? tls_->transport(loop_, fd) : plain_transport(loop_, fd);
  auto connection =
      std::make_shared<Connection>(*this, std::move(transport), std::move(peer), std::move(closed));
  connections_.insert(connection);
  connection->start();
}

void Server::forget(const std::shared_ptr<Connection>& connection) {
  connections_.erase(connection);
}

void Server::sweep() {
  const auto now = Clock::now();
  std::vector<std::shared_ptr<Connection>> late;
  for (const auto& connection : connections_) {
    if (connection->deadline() <= now) {
      late.push_back(connection);
    }
  }
  for (const auto& connection : late) {
    connection->on_deadline();
  }
}

void Server::drain() {
  draining_ = true;
  const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
  for (const auto& connection : all) {
    connection->on_drain();
  }
}

void Server::close_all() {
  const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
  for (const auto& connection : all) {
    connection->close();
  }
}

const std::string& Server::date() {
  const std::time_t now = std::time(nullptr);
  if (now != date_second_) {
    date_second_ = now;
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::array<char, 64> text{};
    const std::size_t length =
        std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    date_.assign(text.data(), length);
  }
  return date_;
}

}  // namespace tessera::gateway::http
