#include "clients/cpp/job.hpp"

#include "clients/cpp/connection.hpp"

namespace tessera::client {

using std::chrono::milliseconds;

Job::Job(std::shared_ptr<Connection> connection, std::shared_ptr<JobState> state)
    : connection_(std::move(connection)), state_(std::move(state)) {
  connection_->with_state([&](Outbox&, TimePoint) {
    id_ = state_->id();
    accepted_before_ = state_->accepted_before();
    delivered_before_ = state_->delivered_before();
  });
}

Job::~Job() {
  if (connection_) {
    connection_->forget(state_);
  }
}

Job::Job(Job&&) noexcept = default;
Job& Job::operator=(Job&&) noexcept = default;

bool Job::cancelled() const {
  bool cancelled = false;
  connection_->with_state([&](Outbox&, TimePoint) {
    cancelled = state_->failure() && state_->failure()->code == ErrorCode::kCancelled;
  });
  return cancelled;
}

Result<void> Job::submit(std::uint32_t chunk, protocol::ItemBlock& items, milliseconds timeout) {
  if (auto valid = protocol::validate(items); !valid) {
    return valid;
  }
  const TimePoint deadline = Clock::now() + timeout;
  const bool room =
      connection_->wait(timeout, [&] { return state_->failure() || state_->has_room(chunk); });
  if (!room) {
    return Error{ErrorCode::kResourceExhausted, "the job's window is full"};
  }
  std::optional<Error> failure;
  bool in_question = true;
  while (in_question && !failure) {
    connection_->with_state([&](Outbox&, TimePoint now) {
      state_->submit(chunk, items, now);
      failure = state_->failure();
      in_question = state_->is_in_question(chunk);
    });
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    const bool answered = !in_question || connection_->wait(std::max(left, milliseconds(0)), [&] {
      return state_->failure() || !state_->is_in_question(chunk);
    });
    if (!answered) {
      return Error{ErrorCode::kResourceExhausted,
                   "the coordinator has not said yet whether its ledger has these items"};
    }
  }
  return failure ? Result<void>(*failure) : Result<void>();
}

Result<void> Job::close(std::uint32_t chunks, milliseconds timeout) {
  const std::uint64_t request = connection_->next_request_id();
  auto reply =
      connection_
          ->call(request,
                 protocol::CloseJob{.request_id = request, .job_id = id_, .chunks = chunks},
                 timeout)
          .get();
  return reply ? Result<void>() : Result<void>(reply.error());
}

Result<std::optional<protocol::ChunkResult>> Job::next(milliseconds timeout) {
  std::optional<protocol::ChunkResult> result;
  std::optional<Error> failure;
  connection_->wait(timeout, [&] {
    result = state_->take_result();
    failure = state_->failure();
    return result || failure;
  });
  if (!result && failure) {
    return *failure;
  }
  return result;
}

void Job::acknowledge(std::uint32_t chunk) {
  connection_->with_state([&](Outbox& outbox, TimePoint) { state_->acknowledge(chunk, outbox); });
}

bool Job::wait_done(milliseconds timeout) {
  return connection_->wait(timeout, [&] {
    return state_->failure() || state_->state() == protocol::JobState::kDone;
  }) && !state_->failure();
}

Result<protocol::JobProgress> Job::progress(milliseconds timeout) {
  const std::uint64_t request = connection_->next_request_id();
  auto reply =
      connection_
          ->call(request, protocol::StatusRequest{.request_id = request, .job_id = id_}, timeout)
          .get();
  if (!reply) {
    return reply.error();
  }
  const auto* status = std::get_if<protocol::StatusReply>(&*reply);
  if (status == nullptr || status->jobs.empty()) {
    return Error{ErrorCode::kNotFound, "the coordinator does not know job " + id_};
  }
  return status->jobs.front();
}

Result<protocol::JobProgress> Job::cancel(milliseconds timeout) {
  const std::uint64_t request = connection_->next_request_id();
  auto reply =
      connection_->call(request, protocol::CancelJob{.request_id = request, .job_id = id_}, timeout)
          .get();
  if (!reply) {
    return reply.error();
  }
  const auto* update = std::get_if<protocol::JobUpdate>(&*reply);
  if (update == nullptr) {
    return Error{ErrorCode::kInternal, "the coordinator gave an unexpected answer"};
  }
  return update->progress;
}

}  // namespace tessera::client
