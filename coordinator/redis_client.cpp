#include "coordinator/redis_client.hpp"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "common/check.hpp"
#include "common/log.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::chrono::milliseconds kBackOffMin{50};
constexpr std::chrono::milliseconds kBackOffMax{2000};
// hiredis moves all that it holds after each write of what the socket takes, a fifth of this at a
// time: with 128 MB waiting, that is all it does.
constexpr std::size_t kUnwrittenBytesMax = std::size_t{1} << 20;

RedisValue to_value(const redisReply& reply) {
  RedisValue value;
  switch (reply.type) {
    case REDIS_REPLY_INTEGER:
      value.kind = RedisValue::Kind::kInteger;
      value.integer = reply.integer;
      break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      value.kind = RedisValue::Kind::kString;
      value.text.assign(reply.str, reply.len);
      break;
    case REDIS_REPLY_ERROR:
      value.kind = RedisValue::Kind::kError;
      value.text.assign(reply.str, reply.len);
      break;
    case REDIS_REPLY_ARRAY:
      value.kind = RedisValue::Kind::kArray;
      value.items.reserve(reply.elements);
      for (std::size_t i = 0; i < reply.elements; ++i) {
        value.items.push_back(to_value(*reply.element[i]));
      }
      break;
    default:
      break;
  }
  return value;
}

// Answers after which the commands behind must not be taken for served: the server is still
// reading its files, or has lost the scripts. A new connection begins from the start.
bool means_not_ready(const RedisValue& value) {
  return value.kind == RedisValue::Kind::kError &&
         (value.text.starts_with("LOADING") || value.text.starts_with("NOSCRIPT") ||
          value.text.starts_with("MASTERDOWN"));
}

RedisValue connection_error(const std::string& why) {
  return {.kind = RedisValue::Kind::kError, .integer = 0, .text = why, .items = {}};
}

std::size_t bytes_of(const RedisCommand& command) {
  std::size_t bytes = command.tail.size();
  for (const std::string& arg : command.args) {
    bytes += arg.size();
  }
  return bytes;
}

// hiredis writes without MSG_NOSIGNAL: a write to a server that has just died must fail, not end
// this process.
void block_broken_pipes() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);
  CHECK(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
}

}  // namespace

struct RedisClient::Connection {
  redisAsyncContext* context = nullptr;
  bool want_read = false;
  bool want_write = false;

  ~Connection() {
    if (context != nullptr) {
      context->data = nullptr;  // Callbacks find nobody.
      redisAsyncFree(context);
    }
  }
};

struct RedisClient::Hooks {
  static RedisClient* client(const redisAsyncContext* context) {
    return static_cast<RedisClient*>(context->data);
  }
  static void add_read(void* c) { static_cast<Connection*>(c)->want_read = true; }
  static void del_read(void* c) { static_cast<Connection*>(c)->want_read = false; }
  static void add_write(void* c) { static_cast<Connection*>(c)->want_write = true; }
  static void del_write(void* c) { static_cast<Connection*>(c)->want_write = false; }
  static void cleanup(void* c) {
    static_cast<Connection*>(c)->want_read = static_cast<Connection*>(c)->want_write = false;
  }
  static void on_connect(const redisAsyncContext* context, int status) {
    RedisClient* self = client(context);
    if (self == nullptr) {
      return;
    }
    if (status == REDIS_OK) {
      self->prepare();
    } else {
      // hiredis frees a context whose connect failed after this returns.
      self->connection_->context = nullptr;
      self->broken_ = context->errstr;
    }
  }
  static void on_disconnect(const redisAsyncContext* context, int /*status*/) {
    if (RedisClient* self = client(context)) {
      self->connection_->context = nullptr;  // hiredis frees it.
      self->broken_ = context->err != 0 ? context->errstr : "the server closed the connection";
    }
  }
  static void on_reply(redisAsyncContext* context, void* reply, void* is_preparation) {
    RedisClient* self = client(context);
    if (self == nullptr || reply == nullptr || !self->broken_.empty()) {
      return;  // The disconnect says what becomes of open commands.
    }
    self->heard_at_ = Clock::now();
    RedisValue value = to_value(*static_cast<redisReply*>(reply));
    if (means_not_ready(value)) {
      self->broken_ = value.text;
    } else if (is_preparation != nullptr) {
      self->prepared(value);
    } else {
      self->answered(std::move(value));
    }
  }
};

RedisClient::RedisClient(RedisOptions options) : options_(std::move(options)) {}
RedisClient::~RedisClient() = default;

void RedisClient::connect(Clock::time_point now) {
  block_broken_pipes();
  broken_.clear();
  heard_at_ = now;
  handed_ = written_ = unwritten_bytes_ = 0;
  connection_ = std::make_unique<Connection>();
  redisAsyncContext* context =
      options_.address.host.empty()
          ? redisAsyncConnectUnix(options_.address.socket.c_str())
          : redisAsyncConnect(options_.address.host.c_str(), options_.address.port);
  CHECK(context != nullptr);
  connection_->context = context;
  if (context->err != 0) {
    broken_ = context->errstr;
    return;
  }
  context->data = this;
  context->ev.data = connection_.get();
  context->ev.addRead = Hooks::add_read;
  context->ev.delRead = Hooks::del_read;
  context->ev.addWrite = Hooks::add_write;
  context->ev.delWrite = Hooks::del_write;
  context->ev.cleanup = Hooks::cleanup;
  state_ = State::kConnecting;
  redisAsyncSetConnectCallback(context, Hooks::on_connect);
  redisAsyncSetDisconnectCallback(context, Hooks::on_disconnect);
}

void RedisClient::prepare() {
  state_ = State::kPreparing;
  script_hashes_.clear();
  preparing_left_ = 0;
  const auto ask = [&](const std::vector<std::string_view>& words) {
    std::vector<const char*> argv;
    std::vector<std::size_t> lengths;  // A password may hold any bytes.
    for (const std::string_view word : words) {
      argv.push_back(word.data());
      lengths.push_back(word.size());
    }
    ++preparing_left_;
    redisAsyncCommandArgv(connection_->context, Hooks::on_reply, this,
                          static_cast<int>(argv.size()), argv.data(), lengths.data());
  };
  const RedisAddress& address = options_.address;
  const std::string database = std::to_string(address.database);
  if (!address.user.empty()) {
    ask({"AUTH", address.user, address.password});
  } else if (!address.password.empty()) {
    ask({"AUTH", address.password});
  }
  if (address.database != 0) {
    ask({"SELECT", database});
  }
  ask({"PING"});
  for (const std::string& script : options_.scripts) {
    ask({"SCRIPT", "LOAD", script});
  }
}

void RedisClient::prepared(const RedisValue& value) {
  if (value.kind == RedisValue::Kind::kError) {
    broken_ = value.text;
    return;
  }
  --preparing_left_;
  if (preparing_left_ < options_.scripts.size()) {
    script_hashes_.push_back(value.text);
  }
  if (preparing_left_ == 0) {
    state_ = State::kReady;
    back_off_ = std::chrono::milliseconds(0);
    send_open();
  }
}

void RedisClient::send_open() {
  while (handed_ < open_.size() && unwritten_bytes_ < kUnwrittenBytesMax) {
    RedisCommand& command = open_[handed_].command;
    unwritten_bytes_ += bytes_of(command);
    send(command);
    ++handed_;
    if (!options_.resend) {
      command = {};  // It will not be needed again.
    }
  }
}

// The server may have had all that the oldest command is only now.
void RedisClient::drained() {
  if (written_ == 0) {
    heard_at_ = Clock::now();
  }
  written_ = handed_;
  unwritten_bytes_ = 0;
  if (state_ == State::kReady) {
    send_open();
  }
}

void RedisClient::send(const RedisCommand& command) {
  std::vector<const char*> argv;
  std::vector<std::size_t> lengths;
  const auto add = [&](const char* data, std::size_t bytes) {
    argv.push_back(data);
    lengths.push_back(bytes);
  };
  if (command.script >= 0) {
    const std::string& hash = script_hashes_.at(static_cast<std::size_t>(command.script));
    add("EVALSHA", 7);
    add(hash.data(), hash.size());
  }
  for (const std::string& arg : command.args) {
    add(arg.data(), arg.size());
  }
  if (command.has_tail) {
    add(reinterpret_cast<const char*>(command.tail.data()), command.tail.size());
  }
  redisAsyncCommandArgv(connection_->context, Hooks::on_reply, nullptr,
                        static_cast<int>(argv.size()), argv.data(), lengths.data());
}

void RedisClient::run(RedisCommand command, Callback done) {
  const bool sound = state_ == State::kReady && broken_.empty();
  if (!sound && !options_.resend) {
    done(connection_error("the server cannot be reached: " + last_error_));
    return;
  }
  if (open_.empty()) {
    heard_at_ = Clock::now();
  }
  open_.push_back({std::move(command), std::move(done)});
  if (sound) {
    send_open();
  }
}

void RedisClient::answered(RedisValue value) {
  CHECK(handed_ > 0);
  const Callback done = std::move(open_.front().done);
  open_.pop_front();
  --handed_;
  written_ -= std::min<std::size_t>(written_, 1);
  done(std::move(value));
}

void RedisClient::drop(const std::string& why) {
  if (state_ == State::kReady) {
    log::warn("Redis at {}: {}", options_.address.printable(), why);
  }
  last_error_ = why;
  state_ = State::kDown;
  connection_.reset();
  broken_.clear();
  back_off_ = std::clamp(2 * back_off_, kBackOffMin, kBackOffMax);
  connect_at_ = Clock::now() + back_off_;
  if (!options_.resend) {
    for (const Open& open : std::exchange(open_, {})) {
      open.done(connection_error(why));
    }
  }
}

net::PollSet::Descriptor RedisClient::descriptor() const {
  if (connection_ == nullptr || connection_->context == nullptr || !broken_.empty()) {
    return {};
  }
  return {.fd = connection_->context->c.fd,
          .want_read = connection_->want_read,
          .want_write = connection_->want_write};
}

void RedisClient::handle(const net::PollSet::Descriptor& ready) {
  const auto alive = [&] {
    return connection_ != nullptr && connection_->context != nullptr && broken_.empty();
  };
  if (alive() && ready.fd == connection_->context->c.fd) {
    if (ready.readable) {
      redisAsyncHandleRead(connection_->context);
    }
    if (ready.writable && alive()) {
      redisAsyncHandleWrite(connection_->context);
      if (alive() && !connection_->want_write) {
        drained();
      }
    }
  }
  if (!broken_.empty()) {
    drop(std::string(broken_));
  }
}

void RedisClient::tick(Clock::time_point now) {
  if (!broken_.empty()) {
    drop(std::string(broken_));
  }
  const bool waits_for_answer = state_ == State::kConnecting || state_ == State::kPreparing ||
                                (state_ == State::kReady && !open_.empty());
  if (waits_for_answer && now - heard_at_ > options_.timeout) {
    drop("no answer for " + std::to_string(options_.timeout.count()) + " ms");
  }
  if (state_ == State::kDown && now >= connect_at_) {
    connect(now);
  }
}

Result<RedisValue> RedisClient::call(RedisCommand command, std::chrono::milliseconds timeout) {
  CHECK(options_.resend);  // So that an answer comes from a working connection.
  const auto shared = std::make_shared<std::pair<bool, RedisValue>>();
  run(std::move(command), [shared](RedisValue value) { *shared = {true, std::move(value)}; });
  const auto deadline = Clock::now() + timeout;
  net::PollSet poll;
  while (!shared->first && Clock::now() < deadline) {
    tick(Clock::now());
    poll.descriptors.clear();
    if (const auto wanted = descriptor(); wanted.fd >= 0) {
      poll.descriptors.push_back(wanted);
    }
    poll.wait(20);
    handle(poll.descriptors.empty() ? net::PollSet::Descriptor{} : poll.descriptors.front());
  }
  RedisValue answer = std::move(shared->second);
  if (!shared->first) {
    return Error{ErrorCode::kUnavailable, last_error_};
  }
  if (answer.kind == RedisValue::Kind::kError) {
    return Error{ErrorCode::kUnavailable, answer.text};
  }
  return answer;
}

}  // namespace tessera::coordinator
