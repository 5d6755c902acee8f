#include "common/net/zmq_socket.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace tessera::net {
namespace {

using protocol::Bytes;
using protocol::Frames;

Frames frames_of(std::size_t header_bytes, std::size_t payload_bytes) {
  return {Bytes(header_bytes, std::byte{1}), Bytes(payload_bytes, std::byte{2})};
}

// Waits until `socket` has a message; bounded, so that a lost message fails instead of hanging.
template <typename S>
bool receive_soon(S& socket, Incoming& message) {
  PollSet poll{.sockets = {&socket}, .descriptors = {}};
  for (int i = 0; i < 500; ++i) {
    if (socket.receive(message)) {
      return true;
    }
    poll.wait(20);
  }
  return false;
}

TEST(Sockets, CarryFramesBothWaysOverAFreePort) {
  Context context;
  RouterSocket server(context, "tcp://127.0.0.1:*");
  DealerSocket client(context, server.endpoint());
  ASSERT_EQ(client.send(frames_of(10, 100'000)), SendStatus::kSent);
  Incoming message;
  ASSERT_TRUE(receive_soon(server, message));
  EXPECT_EQ(message.peer.size(), 16U);
  EXPECT_EQ(message.header.size(), 10U);
  EXPECT_EQ(message.payload, Bytes(100'000, std::byte{2}));
  EXPECT_FALSE(message.malformed);

  ASSERT_EQ(server.send(message.peer, frames_of(3, 0)), SendStatus::kSent);
  Incoming answer;
  ASSERT_TRUE(receive_soon(client, answer));
  EXPECT_EQ(answer.header.size(), 3U);
  EXPECT_TRUE(answer.payload.empty());
}

TEST(Sockets, RouterSaysWhenAPeerIsUnknownOrDoesNotRead) {
  Context context;
  RouterSocket server(context, "tcp://127.0.0.1:*", {.send_queue_messages = 4, .linger_ms = 0});
  EXPECT_EQ(server.send("nobody", frames_of(1, 0)), SendStatus::kUnreachable);

  DealerSocket client(context, server.endpoint(), {.linger_ms = 0});
  ASSERT_EQ(client.send(frames_of(1, 0)), SendStatus::kSent);
  Incoming message;
  ASSERT_TRUE(receive_soon(server, message));
  // The client's own receive queue has no bound, so the pipe fills only as far as TCP slows it;
  // what must hold is that every accepted message arrives whole.
  int sent = 0;
  while (sent < 200 && server.send(message.peer, frames_of(8, 50'000)) == SendStatus::kSent) {
    ++sent;
  }
  EXPECT_GT(sent, 0);
  for (int i = 0; i < sent; ++i) {
    Incoming got;
    ASSERT_TRUE(receive_soon(client, got));
    ASSERT_EQ(got.payload.size(), 50'000U);
  }
}

TEST(Sockets, BindToATakenPortIsOneClearLine) {
  Context context;
  RouterSocket first(context, "tcp://127.0.0.1:*");
  EXPECT_THROW(RouterSocket(context, first.endpoint()), FatalError);
  EXPECT_THROW(DealerSocket(context, "nonsense"), FatalError);
}

TEST(PollSet, WakesForAnEventfd) {
  WakeUp wake_up;
  PollSet poll{.sockets = {}, .descriptors = {{.fd = wake_up.fd(), .want_read = true}}};
  poll.wait(0);
  EXPECT_FALSE(poll.descriptors[0].readable);
  std::jthread other([&] { wake_up.notify(); });
  poll.wait(5000);
  EXPECT_TRUE(poll.descriptors[0].readable);
  wake_up.clear();
  poll.wait(0);
  EXPECT_FALSE(poll.descriptors[0].readable);
}

}  // namespace
}  // namespace tessera::net
