#include "clients/cpp/connection.hpp"

#include <algorithm>

#include "common/log.hpp"
#include "common/net/receive.hpp"
#include "common/wire/codec.hpp"

namespace tessera::client {

using std::chrono::milliseconds;

namespace {

constexpr int kPollMsMax = 200;
constexpr int kReceiveBatch = 256;

// After a long pause there must still be an end: timeout 0 means no deadline.
TimePoint deadline_after(TimePoint now, milliseconds timeout) {
  return timeout.count() == 0 ? TimePoint::max() : now + timeout;
}

// The id of a request that asks for a prompt by name, 0 for any other message.
std::uint64_t names_prompt(const protocol::Message& message) {
  if (const auto* embed = std::get_if<protocol::EmbedRequest>(&message)) {
    return embed->spec.prompt_name.empty() ? 0 : embed->request_id;
  }
  if (const auto* open = std::get_if<protocol::OpenJob>(&message)) {
    return open->spec.prompt_name.empty() ? 0 : open->request_id;
  }
  return 0;
}

// Coordinators of former versions know no other.
void take_former_fingerprints(std::vector<protocol::ModelInfo>& models) {
  for (protocol::ModelInfo& model : models) {
    if (model.fingerprint.empty()) {
      model.fingerprint = model.former_fingerprint;
    }
  }
}

}  // namespace

Connection::Connection(ClientOptions options) : options_(std::move(options)) {
  reconnect(Clock::now());
  wake_.notify();  // The hello goes out at once.
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Connection::~Connection() {
  thread_.request_stop();
  wake_.notify();
  thread_.join();
  const std::lock_guard lock(mutex_);
  requests_.fail_all({ErrorCode::kCancelled, "the client was closed"});
}

Result<protocol::ServerHello> Connection::wait_ready(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return ready_ || refusal_; });
  if (refusal_) {
    return *refusal_;
  }
  if (!ready_) {
    return Error{ErrorCode::kUnavailable, "no coordinator answers at " + options_.coordinator};
  }
  return *hello_;
}

bool Connection::ready() const {
  const std::lock_guard lock(mutex_);
  return ready_;
}

std::uint64_t Connection::next_request_id() {
  const std::lock_guard lock(mutex_);
  return next_id_++;
}

std::future<RequestTable::Reply> Connection::call(std::uint64_t request_id,
                                                  protocol::Message message, milliseconds timeout) {
  const TimePoint now = Clock::now();
  const std::lock_guard lock(mutex_);
  auto future = requests_.add(request_id, std::move(message), now, deadline_after(now, timeout));
  if (refusal_) {
    requests_.fail_all(*refusal_);
  }
  wake_.notify();
  return future;
}

std::shared_ptr<JobState> Connection::add_job(const protocol::OpenJob& open) {
  auto job = std::make_shared<JobState>(open);
  const std::lock_guard lock(mutex_);
  if (refusal_) {
    job->fail(*refusal_);
  }
  jobs_.push_back(job);
  wake_.notify();
  return job;
}

void Connection::forget(const std::shared_ptr<JobState>& job) {
  const std::lock_guard lock(mutex_);
  std::erase(jobs_, job);
}

void Connection::with_state(const std::function<void(Outbox&, TimePoint)>& action) {
  const std::lock_guard lock(mutex_);
  action(outbox_, Clock::now());
  wake_.notify();
}

bool Connection::wait(milliseconds timeout, const std::function<bool()>& ready) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, ready);
}

void Connection::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    net::PollSet poll;
    poll.sockets.push_back(socket_.get());
    poll.descriptors.push_back({.fd = wake_.fd(), .want_read = true});
    poll.wait(poll_ms(Clock::now()));
    wake_.clear();
    receive_all();
    const std::lock_guard lock(mutex_);
    const TimePoint now = Clock::now();
    keep_alive(now);
    requests_.collect(now, outbox_);
    for (const auto& job : jobs_) {
      if (job->open_due(now)) {
        outbox_.push_back(job->open_message(next_id_++, now));
      }
      job->collect(now, outbox_);
    }
    flush(now);
    changed_.notify_all();
  }
  // What the caller acknowledged last is on its way; the socket lingers for it.
  socket_.reset();
}

int Connection::poll_ms(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  TimePoint due = requests_.next_due();
  for (const auto& job : jobs_) {
    due = std::min(due, job->next_due());
  }
  if (due == TimePoint::max() || !ready_) {
    return kPollMsMax;
  }
  const auto wait = std::chrono::duration_cast<milliseconds>(due - now).count() + 1;
  return static_cast<int>(std::clamp<std::int64_t>(wait, 0, kPollMsMax));
}

void Connection::receive_all() {
  net::Incoming incoming;
  for (int i = 0; i < kReceiveBatch && socket_->receive(incoming); ++i) {
    auto message = net::decode(incoming);
    const std::lock_guard lock(mutex_);
    if (!message) {
      log::warn("unreadable message from the coordinator: {}", message.error().message);
      if (message.error().code == ErrorCode::kUnsupportedVersion) {
        handle_error({.code = message.error().code, .message = message.error().message},
                     Clock::now());
      }
      continue;
    }
    handle(std::move(*message), Clock::now());
  }
}

void Connection::handle(protocol::Message message, TimePoint now) {
  last_heard_ = now;
  silent_connects_ = 0;
  if (const auto* hello = std::get_if<protocol::ServerHello>(&message)) {
    handle_hello(*hello, now);
  } else if (const auto* ping = std::get_if<protocol::Ping>(&message)) {
    control_.push_back(protocol::Pong{ping->nonce});
  } else if (const auto* error = std::get_if<protocol::ErrorReply>(&message)) {
    handle_error(*error, now);
  } else if (auto* embed = std::get_if<protocol::EmbedReply>(&message)) {
    requests_.settle(embed->request_id, std::move(message));
  } else if (auto* records = std::get_if<protocol::RecordsReply>(&message)) {
    requests_.settle(records->request_id, std::move(message));
  } else if (auto* status = std::get_if<protocol::StatusReply>(&message)) {
    take_former_fingerprints(status->models);
    requests_.settle(status->request_id, std::move(message));
  } else if (const auto* opened = std::get_if<protocol::JobOpened>(&message)) {
    for (const auto& job : jobs_) {
      if (job->awaits(opened->request_id)) {
        job->on_opened(*opened, now, outbox_);
      }
    }
  } else if (const auto* ack = std::get_if<protocol::ChunkAck>(&message)) {
    if (JobState* job = job_with_id(ack->job_id)) {
      job->on_chunk_ack(*ack, now);
    }
  } else if (auto* result = std::get_if<protocol::ChunkResult>(&message)) {
    if (JobState* job = job_with_id(result->job_id)) {
      job->on_result(std::move(*result), outbox_);
    }
  } else if (const auto* update = std::get_if<protocol::JobUpdate>(&message)) {
    if (JobState* job = job_with_id(update->progress.job_id)) {
      job->on_progress(update->progress);
    }
    requests_.settle(update->request_id, std::move(message));
  }
}

JobState* Connection::job_with_id(const std::string& job_id) {
  const auto found =
      std::ranges::find_if(jobs_, [&](const auto& job) { return job->id() == job_id; });
  return found == jobs_.end() ? nullptr : found->get();
}

void Connection::handle_hello(const protocol::ServerHello& hello, TimePoint now) {
  const bool restarted =
      hello_ && (hello_->epoch != hello.epoch || hello_->ledger_id != hello.ledger_id);
  if (hello.ledger_id != ledger_id_) {
    ledger_id_ = hello.ledger_id;
    term_seen_ = 0;
  }
  term_seen_ = std::max(term_seen_, hello.epoch);
  if (!ready_ || restarted) {
    send_everything_again(now);
    ready_ = true;
  }
  hello_ = hello;
  take_former_fingerprints(hello_->models);
}

// A coordinator that knows nothing of this connection yet, or any more.
void Connection::send_everything_again(TimePoint now) {
  outbox_.clear();
  requests_.send_all_again(now);
  for (const auto& job : jobs_) {
    job->on_disconnected(now);
  }
}

void Connection::handle_error(const protocol::ErrorReply& error, TimePoint now) {
  if (requests_.refuse(error, now)) {
    return;
  }
  for (const auto& job : jobs_) {
    if (error.request_id != 0 && job->awaits(error.request_id)) {
      job->on_open_refused(error, now);
      return;
    }
  }
  if (error.request_id == 0) {
    handle_error_for_nobody({error.code, error.message});
  } else {
    log::warn("the coordinator reports {}: {}", to_string(error.code), error.message);
  }
}

// The coordinator could not read what it refuses, so it may be anything that was sent: all that
// waits for an answer ends with the reason, instead of waiting for its deadline.
void Connection::handle_error_for_nobody(const Error& error) {
  log::warn("the coordinator reports {}: {}", to_string(error.code), error.message);
  if (error.code == ErrorCode::kResourceExhausted || error.code == ErrorCode::kUnavailable) {
    return;  // Of the hello, which is said again.
  }
  const bool final = error.code == ErrorCode::kUnsupportedVersion ||
                     error.code == ErrorCode::kUnauthenticated || !ready_;
  if (final) {
    refusal_ = error;
    requests_.fail_all(error);
  } else {
    requests_.fail_sent(error);
  }
  for (const auto& job : jobs_) {
    if (final || job->waits()) {
      job->fail(error);
    }
  }
}

void Connection::keep_alive(TimePoint now) {
  if (refusal_) {
    return;
  }
  // A connection that broke took with it what was under way, so all is said again on a fresh one.
  if (socket_->take_disconnected() && ready_) {
    reconnect(now);
    return;
  }
  const auto silence_max = options_.silence_max * (1 + std::min(silent_connects_, 3U));
  if (now - last_heard_ > silence_max) {
    ++silent_connects_;
    reconnect(now);
    return;
  }
  if (now - last_hello_ > options_.hello_again) {
    last_hello_ = now;
    say_hello();
  } else if (now - last_heard_ > options_.ping && now - last_ping_ > options_.ping) {
    last_ping_ = now;
    control_.push_back(protocol::Ping{next_id_++});
  }
}

void Connection::say_hello() {
  control_.push_back(protocol::ClientHello{.client = options_.name,
                                           .tenant = options_.tenant,
                                           .ledger_id = ledger_id_,
                                           .term_seen = term_seen_});
}

// A fresh socket with a fresh routing id: answers meant for the old one can never mix in.
void Connection::reconnect(TimePoint now) {
  ready_ = false;
  control_.clear();
  socket_ = std::make_unique<net::DealerSocket>(
      context_, options_.coordinator,
      net::SocketOptions{.send_queue_messages = 0, .linger_ms = 1000});
  last_heard_ = now;
  last_hello_ = now;
  say_hello();
}

void Connection::flush(TimePoint now) {
  for (Outbox* box : {&control_, &outbox_}) {
    if (box == &outbox_ && !ready_) {
      outbox_.clear();  // The coordinator's hello has everything said again.
      return;
    }
    while (!box->empty()) {
      if (const std::uint64_t id = names_prompt(box->front());
          id != 0 && hello_->minor < protocol::kMinorWithPromptNames) {
        handle_error({.request_id = id,
                      .code = ErrorCode::kInvalidArgument,
                      .message = "the coordinator is of a version without prompt names and would "
                                 "embed the texts without the prompt; update it"},
                     now);
        box->pop_front();
        continue;
      }
      // The send queue has no bound, so a send can fail only when the process is out of memory.
      CHECK(socket_->send(protocol::encode(std::move(box->front()))) == net::SendStatus::kSent);
      box->pop_front();
    }
  }
}

}  // namespace tessera::client
