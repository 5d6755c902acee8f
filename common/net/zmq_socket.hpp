#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/wire/codec.hpp"

namespace tessera::net {

// Owner of ZeroMQ's I/O thread. Thread-safe; must outlive its sockets.
class Context {
 public:
  explicit Context(int io_threads = 1);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

 private:
  friend class Socket;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

enum class SendStatus : std::uint8_t {
  kSent,         // Queued; says nothing of arrival. Whoever must know asks for an answer.
  kFull,         // The peer does not read as fast as it is sent to; nothing was sent.
  kUnreachable,  // ROUTER only: no such peer now; nothing was sent.
};

struct SocketOptions {
  int send_queue_messages = 1000;  // Per peer; 0 = no bound, for senders bound by credits.
  // Per peer, of frames from 8 KiB on; 0 = no bound. ROUTER only. A message goes beyond it only
  // when nothing else waits.
  std::size_t send_queue_bytes = 0;
  int linger_ms = 1000;  // How long close waits for unsent messages.
};

// A message as it came in: not yet decoded, so `malformed` peers are seen by the caller.
struct Incoming {
  std::string peer;  // ROUTER: the routing id of the sender. DEALER: empty.
  protocol::Bytes header;
  protocol::Bytes payload;
  bool malformed = false;  // Not one or two frames.
};

// What ROUTER and DEALER have in common: settings that measurement has shown to be needed (receive
// high-water mark 0, largest message, keepalive, reconnect back-off), non-blocking send and
// receive. Move-only, used by one thread only.
class Socket {
 public:
  ~Socket();
  Socket(Socket&&) noexcept;
  Socket& operator=(Socket&&) noexcept;

  // Takes the next message that has arrived; false when there is none.
  bool receive(Incoming& message);

  // For other loops than PollSet: readable when something may have happened, and only once for each
  // time (edge-triggered). Whoever waits for it calls receive() until it says false, after each
  // wake-up and after each send.
  int fd() const;

  // The bound address, with the port that `tcp://host:*` got. Empty for connecting sockets.
  const std::string& endpoint() const { return endpoint_; }

 protected:
  enum class Kind : std::uint8_t { kRouter, kDealer };
  Socket(Context& context, Kind kind, const SocketOptions& options);
  void bind(const std::string& endpoint);     // Throws FatalError.
  void connect(const std::string& endpoint);  // Throws FatalError on a malformed address.
  SendStatus send_frames(const std::string* peer, protocol::Frames frames);

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  friend struct PollSet;
  std::unique_ptr<Impl> impl_;
  bool is_router_;
  std::string endpoint_;
};

class RouterSocket : public Socket {
 public:
  RouterSocket(Context& context, const std::string& endpoint, const SocketOptions& options = {});
  SendStatus send(const std::string& peer, protocol::Frames frames) {
    return send_frames(&peer, std::move(frames));
  }
};

// Connects with a fresh random 128-bit routing id, so that an answer meant for an earlier start of
// this process can never reach it. After a liveness failure make a new one.
class DealerSocket : public Socket {
 public:
  DealerSocket(Context& context, const std::string& endpoint, const SocketOptions& options = {});
  SendStatus send(protocol::Frames frames) { return send_frames(nullptr, std::move(frames)); }

  // Whether the connection broke since the last call. ZeroMQ makes the next one by itself, with the
  // same routing id, but what was under way is lost without a word: whoever cannot have that makes
  // a new socket and begins anew. PollSet::wait wakes for it.
  bool take_disconnected();
};

// What one thread waits for: sockets, and plain file descriptors (an eventfd, Redis' connection).
struct PollSet {
  struct Descriptor {
    int fd = -1;
    bool want_read = false;
    bool want_write = false;
    bool readable = false;  // set by wait
    bool writable = false;  // set by wait
  };
  std::vector<Socket*> sockets;
  std::vector<Descriptor> descriptors;

  // Sleeps until a socket can be read or a DEALER's connection broke, a descriptor is ready, a
  // signal came or the time is over. Callers drain every socket with receive() afterwards, readable
  // or not.
  void wait(int timeout_ms);
};

// An eventfd: wakes a thread in PollSet::wait. `notify` may be called from any thread and from
// signal handlers; `clear` by the waiting thread.
class WakeUp {
 public:
  WakeUp();
  ~WakeUp();
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;
  void notify() const;
  void clear() const;
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace tessera::net
