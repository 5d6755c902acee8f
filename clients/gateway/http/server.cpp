#include "clients/gateway/http/server.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <vector>

#include "clients/gateway/http/connection.hpp"
#include "common/check.hpp"

namespace tessera::gateway::http {
namespace {

constexpr std::chrono::milliseconds kSweep{100};
// Connections that one turn of the loop looks at, each a miss of the cache or two.
constexpr std::size_t kSweptPerTurn = 256;

}  // namespace

Server::Server(Loop& loop, Router router, Hooks hooks, const Limits& limits, HeldBytes& held,
               TlsContext* tls)
    : loop_(loop),
      router_(std::move(router)),
      hooks_(std::move(hooks)),
      limits_(limits),
      held_(held),
      tls_(tls) {
  loop_.every(kSweep, [this] {
    if (!sweeping_) {
      sweep_from(0);
    }
  });
}

Server::~Server() { close_all(); }

void Server::adopt(int fd, std::string peer, std::function<void()> closed) {
  auto transport = tls_ != nullptr ? tls_->transport(loop_, fd) : plain_transport(loop_, fd);
  auto connection =
      std::make_shared<Connection>(*this, std::move(transport), std::move(peer), std::move(closed));
  connection->set_place(connections_.size());
  connections_.push_back(connection);
  connection->start();
}

void Server::forget(const std::shared_ptr<Connection>& connection) {
  const std::size_t place = connection->place();
  CHECK(place < connections_.size() && connections_[place] == connection);
  std::swap(connections_[place], connections_.back());
  connections_[place]->set_place(place);
  connections_.pop_back();
}

// Ten thousand idle connections would keep a request waiting for a millisecond, so a turn looks at
// some and lets others go first. One that takes a closed one's place may be missed until next time.
void Server::sweep_from(std::size_t begin) {
  const auto now = Clock::now();
  const std::size_t end = std::min(connections_.size(), begin + kSweptPerTurn);
  std::vector<std::shared_ptr<Connection>> late;
  for (std::size_t i = begin; i < end; ++i) {
    if (connections_[i]->deadline() <= now) {
      late.push_back(connections_[i]);
    }
  }
  for (const auto& connection : late) {
    connection->on_deadline();
  }
  sweeping_ = end < connections_.size();
  if (sweeping_) {
    loop_.post([this, end] { sweep_from(end); });
  }
}

void Server::drain() {
  draining_ = true;
  const auto all = connections_;
  for (const auto& connection : all) {
    connection->on_drain();
  }
}

void Server::close_all() {
  const auto all = connections_;
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
