#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/net/zmq_socket.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/redis_url.hpp"

namespace tessera::coordinator {

struct RedisValue {
  enum class Kind : std::uint8_t { kNil, kInteger, kString, kArray, kError };
  Kind kind = Kind::kNil;
  std::int64_t integer = 0;
  std::string text;  // kString (any bytes) and kError
  std::vector<RedisValue> items;
};

struct RedisCommand {
  int script = -1;                // Index into RedisOptions::scripts; -1: args is a plain command.
  std::vector<std::string> args;  // For a script: number of keys, keys, arguments.
  std::vector<std::byte> tail;    // One more argument, when has_tail.
  bool has_tail = false;
};

struct RedisOptions {
  RedisAddress address;
  std::vector<std::string> scripts;  // Lua, loaded on every connection before anything else.
  // What happens to commands whose connection broke before their answer: sent again on the next
  // one, in order (they must be idempotent), or answered with an error.
  bool resend = false;
  // Without any answer to what has been written, or any headway in writing it: the connection is
  // given up.
  std::chrono::milliseconds timeout{5000};
};

// One pipelined connection to a Redis server, on one thread, inside somebody else's poll loop.
// Reconnects by itself with back-off. Answers come in the order of the commands. Blocks SIGPIPE for
// its thread.
class RedisClient {
 public:
  using Callback = std::function<void(RedisValue)>;
  using Clock = std::chrono::steady_clock;

  explicit RedisClient(RedisOptions options);
  ~RedisClient();  // Callbacks of open commands are not called.
  RedisClient(const RedisClient&) = delete;
  RedisClient& operator=(const RedisClient&) = delete;

  // The callback may be called from within, when the connection is down and resend is off.
  void run(RedisCommand command, Callback done);
  bool ready() const { return state_ == State::kReady; }
  std::size_t open_commands() const { return open_.size(); }

  // For the poll loop: what to wait for (fd -1: nothing), and what to do afterwards.
  net::PollSet::Descriptor descriptor() const;
  void handle(const net::PollSet::Descriptor& ready);
  void tick(Clock::time_point now);

  // Runs one command and waits for its answer, polling this connection only: for start-up. The
  // error says what is wrong with the server.
  Result<RedisValue> call(RedisCommand command, std::chrono::milliseconds timeout);

 private:
  enum class State : std::uint8_t { kDown, kConnecting, kPreparing, kReady };
  struct Hooks;  // What hiredis calls.
  struct Connection;
  struct Open {
    RedisCommand command;
    Callback done;
  };

  void connect(Clock::time_point now);
  void prepare();
  void prepared(const RedisValue& value);
  void send(const RedisCommand& command);
  // Hands commands to hiredis, as many as it should hold; the others wait for `drained`.
  void send_open();
  void drained();
  void answered(RedisValue value);
  void drop(const std::string& why);

  const RedisOptions options_;
  State state_ = State::kDown;
  std::unique_ptr<Connection> connection_;
  std::vector<std::string> script_hashes_;
  std::size_t preparing_left_ = 0;
  std::deque<Open> open_;            // Not answered. Of these, from the front,
  std::size_t handed_ = 0;           // so many are with hiredis,
  std::size_t written_ = 0;          // so many with the kernel.
  std::size_t unwritten_bytes_ = 0;  // Handed since all was written.
  std::string broken_;               // Why the connection is to be dropped; empty: it is sound.
  std::string last_error_ = "no connection was made yet";
  Clock::time_point heard_at_;
  Clock::time_point connect_at_;  // Earliest next attempt.
  std::chrono::milliseconds back_off_{0};
};

}  // namespace tessera::coordinator
