#include "bench/coordinator/bench_peers.hpp"

#include <chrono>
#include <cstring>

#include "common/check.hpp"
#include "common/float16.hpp"
#include "common/wire/codec.hpp"

namespace tessera::bench {

protocol::Message receive(net::DealerSocket& socket) {
  net::Incoming incoming;
  net::PollSet poll{.sockets = {&socket}, .descriptors = {}};
  for (int tries = 0; !socket.receive(incoming); ++tries) {
    CHECK(tries < 100);
    poll.wait(100);
  }
  auto message = protocol::decode(incoming.header, std::move(incoming.payload));
  CHECK(message.ok());
  return std::move(message).value();
}

InstantWorker::InstantWorker(const std::string& address, protocol::WorkerHello hello)
    : address_(address),
      hello_(std::move(hello)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void InstantWorker::run(const std::stop_token& stop) {
  net::Context context;
  net::DealerSocket socket(context, address_);
  socket.send(protocol::encode(hello_));
  net::PollSet poll{.sockets = {&socket}, .descriptors = {}};
  while (!stop.stop_requested()) {
    poll.wait(50);
    net::Incoming incoming;
    while (socket.receive(incoming)) {
      auto message = protocol::decode(incoming.header, std::move(incoming.payload));
      CHECK(message.ok());
      if (std::holds_alternative<protocol::Ping>(*message)) {
        socket.send(protocol::encode(protocol::Pong{}));
      }
      auto* batch = std::get_if<protocol::Batch>(&*message);
      if (batch == nullptr) {
        continue;
      }
      protocol::BatchResult result{
          .epoch = batch->epoch, .batch_id = batch->batch_id, .attempt = batch->attempt};
      result.codes.assign(batch->lengths.size(), 0);
      result.payload.resize(batch->lengths.size() * hello_.hidden_size * 2);
      auto* rows = reinterpret_cast<std::uint16_t*>(result.payload.data());
      const auto* ids = reinterpret_cast<const std::int32_t*>(batch->payload.data());
      for (std::size_t i = 0; i < batch->lengths.size(); ++i) {
        // A unit vector that tells which sequence it belongs to.
        rows[i * hello_.hidden_size + static_cast<std::size_t>(ids[0]) % hello_.hidden_size] =
            to_float16(1.0F);
        ids += batch->lengths[i];
      }
      sequences_ += batch->lengths.size();
      socket.send(protocol::encode(std::move(result)));
    }
  }
}

Echo::Echo()
    : router_(context_, "tcp://127.0.0.1:*"),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void Echo::run(const std::stop_token& stop) {
  net::PollSet poll{.sockets = {&router_}, .descriptors = {}};
  while (!stop.stop_requested()) {
    poll.wait(50);
    net::Incoming incoming;
    while (router_.receive(incoming)) {
      router_.send(incoming.peer, {std::move(incoming.header), std::move(incoming.payload)});
    }
  }
}

}  // namespace tessera::bench
