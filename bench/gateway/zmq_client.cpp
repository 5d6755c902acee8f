// Vectors a second over the wire protocol, with requests of 32 texts, 64 of them under way: what
// the same questions over HTTP are measured against.
//   gateway_zmq_client COORDINATOR MODEL SECONDS [TEXTS_PER_REQUEST [UNDER_WAY]]
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "clients/cpp/items.hpp"
#include "common/net/zmq_socket.hpp"
#include "common/wire/codec.hpp"

namespace {

using namespace tessera;
using Clock = std::chrono::steady_clock;

struct Run {
  net::DealerSocket socket;
  std::string model;
  std::size_t texts;
  std::uint64_t next_id = 1;
  std::uint64_t vectors = 0;

  void ask() {
    protocol::EmbedRequest request{.request_id = next_id++};
    request.spec.model = model;
    for (std::size_t i = 0; i < texts; ++i) {
      client::append_text(request.items, "cached text " + std::to_string(i));
    }
    CHECK(socket.send(protocol::encode(std::move(request))) == net::SendStatus::kSent);
  }

  void receive_all() {
    net::Incoming incoming;
    while (socket.receive(incoming)) {
      auto message = protocol::decode(incoming.header, std::move(incoming.payload));
      CHECK(message.ok());
      if (const auto* reply = std::get_if<protocol::EmbedReply>(&*message)) {
        CHECK(client::check_results(reply->results, texts).ok());
        vectors += reply->results.codes.size();
        ask();
      } else if (const auto* ping = std::get_if<protocol::Ping>(&*message)) {
        (void)socket.send(protocol::encode(protocol::Pong{ping->nonce}));
      }
    }
  }

  void run_for(double seconds) {
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    while (Clock::now() < end) {
      net::PollSet poll;
      poll.sockets = {&socket};
      poll.wait(10);
      receive_all();
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: gateway_zmq_client COORDINATOR MODEL SECONDS [TEXTS [UNDER_WAY]]\n";
    return 2;
  }
  net::Context context;
  Run run{.socket = net::DealerSocket(context, argv[1], {.send_queue_messages = 0}),
          .model = argv[2],
          .texts = argc > 4 ? std::stoul(argv[4]) : 32};
  (void)run.socket.send(protocol::encode(protocol::ClientHello{.client = "bench"}));
  for (int i = 0; i < (argc > 5 ? std::atoi(argv[5]) : 64); ++i) {
    run.ask();
  }
  run.run_for(1);  // Fills the cache.
  run.vectors = 0;
  const auto begin = Clock::now();
  run.run_for(std::stod(argv[3]));
  const double took = std::chrono::duration<double>(Clock::now() - begin).count();
  std::cout << R"({"vectors_per_s":)" << static_cast<double>(run.vectors) / took << "}\n";
}
