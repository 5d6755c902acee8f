// An HTTP client whose requests leave at fixed times, whatever the answers do: the delay of each is
// counted from the time at which it was due, so a server that stalls is not asked less.
//   gateway_open_loop HOST PORT REQUEST_FILE RATE SECONDS CONNECTIONS
// Prints one line of JSON.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Connection {
  int fd = -1;
  bool busy = false;
  Clock::time_point due;
  std::string answer;
};

int connect_to(const char* host, int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, host, &address.sin_addr);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    std::cerr << "cannot connect\n";
    std::exit(1);
  }
  return fd;
}

// Whether a whole answer with Content-Length has come.
bool complete(const std::string& answer) {
  const std::size_t head = answer.find("\r\n\r\n");
  const std::size_t field = answer.find("ontent-length: ");
  const std::size_t other = answer.find("ontent-Length: ");
  const std::size_t at = std::min(field, other);
  return head != std::string::npos && at < head &&
         answer.size() >= head + 4 + std::stoul(answer.substr(at + 15, 20));
}

struct Run {
  std::vector<Connection> connections;
  std::string request;
  std::vector<double> delays_ms;
  std::size_t failed = 0;
  std::deque<Clock::time_point> waiting;  // Due, and no connection is free.

  void send_on(Connection& connection, Clock::time_point due) {
    connection.busy = true;
    connection.due = due;
    connection.answer.clear();
    (void)!write(connection.fd, request.data(), request.size());
  }
  void start(Clock::time_point due) {
    const auto found = std::ranges::find(connections, false, &Connection::busy);
    if (found == connections.end()) {
      waiting.push_back(due);
    } else {
      send_on(*found, due);
    }
  }
  void receive(Connection& connection) {
    char buffer[65536];
    const ssize_t n = read(connection.fd, buffer, sizeof(buffer));
    if (n <= 0) {
      std::cerr << "the server closed a connection\n";
      std::exit(1);
    }
    connection.answer.append(buffer, static_cast<std::size_t>(n));
    if (!complete(connection.answer)) {
      return;
    }
    failed += connection.answer.compare(0, 12, "HTTP/1.1 200") == 0 ? 0 : 1;
    delays_ms.push_back(
        std::chrono::duration<double, std::milli>(Clock::now() - connection.due).count());
    connection.busy = false;
    if (!waiting.empty()) {
      send_on(connection, waiting.front());
      waiting.pop_front();
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "usage: gateway_open_loop HOST PORT REQUEST_FILE RATE SECONDS CONNECTIONS\n";
    return 2;
  }
  Run run;
  std::ostringstream text;
  text << std::ifstream(argv[3], std::ios::binary).rdbuf();
  run.request = text.str();
  const double rate = std::stod(argv[4]);
  const auto total = static_cast<std::size_t>(rate * std::stod(argv[5]));
  run.connections.resize(std::stoul(argv[6]));
  std::vector<pollfd> polled;
  for (Connection& connection : run.connections) {
    connection.fd = connect_to(argv[1], std::stoi(argv[2]));
    polled.push_back({.fd = connection.fd, .events = POLLIN, .revents = 0});
  }
  const auto begin = Clock::now();
  std::size_t started = 0;
  while (run.delays_ms.size() < total) {
    const auto now = Clock::now();
    while (started < total) {
      const auto due =
          begin + std::chrono::duration_cast<Clock::duration>(
                      std::chrono::duration<double>(static_cast<double>(started) / rate));
      if (due > now) {
        break;
      }
      run.start(due);
      ++started;
    }
    const timespec nap{.tv_sec = 0, .tv_nsec = 50'000};
    if (ppoll(polled.data(), polled.size(), &nap, nullptr) > 0) {
      for (std::size_t i = 0; i < polled.size(); ++i) {
        if ((polled[i].revents & POLLIN) != 0) {
          run.receive(run.connections[i]);
        }
      }
    }
  }
  const double took = std::chrono::duration<double>(Clock::now() - begin).count();
  std::ranges::sort(run.delays_ms);
  const auto at = [&](double share) {
    return run.delays_ms[static_cast<std::size_t>(share * static_cast<double>(total - 1))];
  };
  std::cout << R"({"rate":)" << static_cast<double>(total) / took << R"(,"failed":)" << run.failed
            << R"(,"p50_ms":)" << at(0.5) << R"(,"p99_ms":)" << at(0.99) << R"(,"max_ms":)" << at(1)
            << "}\n";
}
