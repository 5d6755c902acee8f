#include "common/net/zmq_socket.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

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

// A plain TCP connection that greets as ZeroMQ does and then reads nothing: its peer can send only
// what the kernel buffers.
class DeafDealer {
 public:
  DeafDealer(const std::string& endpoint, const std::string& routing_id) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    const int small = 4096;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port =
        htons(static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    std::string greeting("\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL", 16);
    greeting.resize(64);
    send_all(greeting);
    receive_all(64);
    std::string ready(
        "\x05READY\x0bSocket-Type\0\0\0\x06"
        "DEALER\x08Identity",
        37);
    ready += std::string("\0\0\0", 3) + static_cast<char>(routing_id.size()) + routing_id;
    send_all(std::string("\x04", 1) + static_cast<char>(ready.size()) + ready);
    receive_all(43);                      // The other's READY.
    send_all(std::string("\0\x01x", 3));  // A message of one byte.
  }
  ~DeafDealer() { ::close(fd_); }

 private:
  void send_all(const std::string& bytes) {
    ASSERT_EQ(::send(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  void receive_all(std::size_t bytes) {
    std::string buffer(bytes, '\0');
    ASSERT_EQ(::recv(fd_, buffer.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
  }
  int fd_ = -1;
};

TEST(Sockets, APeerThatReadsNothingHoldsSoManyBytesAndNoMore) {
  Context context;
  RouterSocket server(context, "tcp://127.0.0.1:*",
                      {.send_queue_messages = 4000, .send_queue_bytes = 3'000'000, .linger_ms = 0});
  const DeafDealer deaf(server.endpoint(), "deaf");
  DealerSocket reader(context, server.endpoint(), {.linger_ms = 0});
  ASSERT_EQ(reader.send(frames_of(1, 0)), SendStatus::kSent);
  std::string other;
  for (int i = 0; i < 2; ++i) {
    Incoming message;
    ASSERT_TRUE(receive_soon(server, message));
    other = message.peer == "deaf" ? other : message.peer;
  }
  int sent = 0;
  while (sent < 200 && server.send("deaf", frames_of(8, 1'000'000)) == SendStatus::kSent) {
    ++sent;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // For what the kernel takes.
  }
  EXPECT_GE(sent, 3);
  EXPECT_LT(sent, 20) << "the queue of one peer, and the kernel's buffers";
  EXPECT_EQ(server.send("deaf", frames_of(8, 1'000'000)), SendStatus::kFull);
  for (int i = 0; i < 100; ++i) {  // Another's bytes come back as they are read.
    ASSERT_EQ(server.send(other, frames_of(8, 1'000'000)), SendStatus::kSent) << i;
    Incoming got;
    ASSERT_TRUE(receive_soon(reader, got));
    ASSERT_EQ(got.payload.size(), 1'000'000U);
  }
}

TEST(Sockets, ADealerLearnsThatItsConnectionBroke) {
  Context context;
  auto server = std::make_unique<RouterSocket>(context, "tcp://127.0.0.1:*");
  const std::string endpoint = server->endpoint();
  DealerSocket client(context, endpoint);
  ASSERT_EQ(client.send(frames_of(1, 0)), SendStatus::kSent);
  Incoming message;
  ASSERT_TRUE(receive_soon(*server, message));
  EXPECT_FALSE(client.take_disconnected());
  server.reset();
  PollSet poll{.sockets = {&client}, .descriptors = {}};
  bool broke = false;
  for (int i = 0; i < 500 && !broke; ++i) {
    poll.wait(20);
    broke = client.take_disconnected();
  }
  EXPECT_TRUE(broke);
  EXPECT_FALSE(client.take_disconnected()) << "told once";
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
