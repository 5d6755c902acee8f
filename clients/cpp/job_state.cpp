#include "clients/cpp/job_state.hpp"

#include <algorithm>
#include <chrono>

namespace tessera::client {
namespace {

// What got no answer for so long is sent again; sending twice is harmless.
constexpr std::chrono::seconds kAnswerWait{10};
constexpr std::uint32_t kJobChunksMax = 1U << 22;  // Of any coordinator's jobs.

}  // namespace

protocol::OpenJob JobState::open_message(std::uint64_t request_id, TimePoint now) {
  open_.request_id = request_id;
  open_at_ = now + kAnswerWait;
  return open_;
}

void JobState::on_open_refused(const protocol::ErrorReply& error, TimePoint now) {
  if (error.code == ErrorCode::kResourceExhausted || error.retry_after_ms > 0) {
    open_at_ = now + back_off(open_refusals_++, error.retry_after_ms);
  } else {
    fail({error.code, error.message});
  }
}

void JobState::on_disconnected(TimePoint now) {
  opened_ = false;
  open_at_ = now;
}

void JobState::on_opened(const protocol::JobOpened& opened, TimePoint now, Outbox& outbox) {
  if (failure_) {
    return;
  }
  // A range of four billion chunks would be four billion entries below.
  const auto within = [](const auto& range) { return range.second < kJobChunksMax; };
  if (!std::ranges::all_of(opened.accepted, within) ||
      !std::ranges::all_of(opened.delivered, within)) {
    fail({ErrorCode::kInternal, "the coordinator's answer is broken: too many chunks"});
    return;
  }
  state_ = opened.state;
  if (opened.state == protocol::JobState::kCancelled) {
    fail({ErrorCode::kCancelled, "the job was cancelled"});
  }
  if (!was_opened()) {
    id_ = opened.job_id;
    window_chunks_ = std::max(1U, opened.window_chunks);
    delivered_before_ = RangeSet(opened.delivered);
    accepted_before_ = RangeSet(opened.accepted);
    accepted_before_.for_each([&](std::uint32_t chunk) {
      if (!delivered_before_.contains(chunk)) {
        in_flight_.insert(chunk);
      }
    });
    accepted_ = accepted_before_;
    for (const auto& [first, last] : opened.delivered) {
      accepted_.insert(first, last);
    }
  } else {
    reconcile(opened, now, outbox);
  }
  opened_ = true;
}

// After a lost connection: what the ledger holds now against what we know.
void JobState::reconcile(const protocol::JobOpened& opened, TimePoint now, Outbox& outbox) {
  const RangeSet delivered(opened.delivered);
  RangeSet accepted(opened.accepted);
  for (const auto& [first, last] : opened.delivered) {
    accepted.insert(first, last);
  }
  const bool lost = opened.job_id != id_ || std::ranges::any_of(in_flight_, [&](std::uint32_t c) {
                      return ledger_has(c) && !received_.contains(c) && !accepted.contains(c);
                    });
  if (lost) {
    fail({ErrorCode::kUnavailable,
          "the coordinator came back without this job's ledger; start the job again"});
    return;
  }
  acknowledged_.for_each([&](std::uint32_t chunk) {
    if (accepted.contains(chunk) && !delivered.contains(chunk)) {
      outbox.push_back(protocol::ResultAck{.job_id = id_, .chunk = chunk});
    }
  });
  accepted_ = std::move(accepted);
  std::erase_if(outgoing_, [&](const auto& entry) { return ledger_has(entry.first); });
  for (auto& [chunk, outgoing] : outgoing_) {
    outgoing.send_at = now;
  }
  // A ledger that went back may have taken other items since, from another client of this key.
  for (const auto& [chunk, digest] : digests_) {
    if (ledger_has(chunk) && in_flight_.contains(chunk) && !received_.contains(chunk)) {
      questions_[chunk] = {.digest = digest, .send_at = now};
    }
  }
  std::erase_if(questions_, [&](const auto& entry) { return !ledger_has(entry.first); });
  for (auto& [chunk, question] : questions_) {
    question.send_at = now;
  }
}

void JobState::on_chunk_ack(const protocol::ChunkAck& ack, TimePoint now) {
  const auto found = outgoing_.find(ack.chunk);
  const auto asked = questions_.find(ack.chunk);
  if (found != outgoing_.end() && ack.code == ErrorCode::kOk) {
    accepted_.insert(ack.chunk);
    outgoing_.erase(found);
  } else if (found != outgoing_.end()) {
    on_refused_chunk(ack, found->second.send_at, found->second.refusals, now);
  } else if (asked != questions_.end() && ack.code == ErrorCode::kOk) {
    digests_[ack.chunk] = asked->second.digest;
    questions_.erase(asked);
  } else if (asked != questions_.end()) {
    on_refused_chunk(ack, asked->second.send_at, asked->second.refusals, now);
  }  // Else a second acknowledgement, of a chunk that was sent twice.
}

void JobState::on_refused_chunk(const protocol::ChunkAck& ack, TimePoint& send_at,
                                std::uint32_t& refusals, TimePoint now) {
  if (ack.code == ErrorCode::kResourceExhausted || ack.code == ErrorCode::kUnavailable) {
    send_at = now + back_off(refusals++, ack.retry_after_ms);
  } else if (ack.code == ErrorCode::kNotFound) {
    // A coordinator that was restarted got the chunk before it got our OpenJob.
    opened_ = false;
    open_at_ = now + back_off(open_refusals_++, ack.retry_after_ms);
    send_at = now;
  } else {
    fail({ack.code, "chunk " + std::to_string(ack.chunk) + " was refused: " + ack.message});
  }
}

void JobState::on_result(protocol::ChunkResult result, Outbox& outbox) {
  const std::uint32_t chunk = result.chunk;
  if (acknowledged_.contains(chunk)) {
    outbox.push_back(protocol::ResultAck{.job_id = id_, .chunk = chunk});
    return;
  }
  if (failure_ || !received_.insert(chunk).second) {
    return;
  }
  outgoing_.erase(chunk);
  accepted_.insert(chunk);
  in_flight_.insert(chunk);
  results_.push_back(std::move(result));
}

void JobState::on_progress(const protocol::JobProgress& progress) {
  state_ = progress.state;
  if (state_ == protocol::JobState::kCancelled) {
    fail({ErrorCode::kCancelled, "the job was cancelled"});
  }
}

void JobState::fail(Error error) {
  if (!failure_) {
    failure_ = std::move(error);
  }
  outgoing_.clear();
  std::erase_if(results_, [&](const auto& result) { return questions_.contains(result.chunk); });
  questions_.clear();
}

void JobState::collect(TimePoint now, Outbox& outbox) {
  if (!opened_ || failure_) {
    return;
  }
  for (auto& [chunk, outgoing] : outgoing_) {
    if (outgoing.send_at <= now) {
      outbox.push_back(
          protocol::SubmitChunk{.job_id = id_, .chunk = chunk, .items = outgoing.items});
      outgoing.send_at = now + kAnswerWait;
    }
  }
  for (auto& [chunk, question] : questions_) {
    if (question.send_at <= now) {
      const auto& digest = question.digest;
      outbox.push_back(protocol::SubmitChunk{.job_id = id_,
                                             .chunk = chunk,
                                             .items = {},
                                             .digest = std::vector(digest.begin(), digest.end())});
      question.send_at = now + kAnswerWait;
    }
  }
}

TimePoint JobState::next_due() const {
  if (failure_) {
    return TimePoint::max();
  }
  TimePoint due = TimePoint::max();
  if (!opened_) {
    due = open_at_;
  } else {
    for (const auto& [chunk, outgoing] : outgoing_) {
      due = std::min(due, outgoing.send_at);
    }
    for (const auto& [chunk, question] : questions_) {
      due = std::min(due, question.send_at);
    }
  }
  return due;
}

bool JobState::has_room(std::uint32_t chunk) const {
  return ledger_has(chunk) || in_flight_.size() < window_chunks_;
}

void JobState::submit(std::uint32_t chunk, protocol::ItemBlock& items, TimePoint now) {
  if (failure_) {
    return;
  }
  const protocol::ChunkDigest digest = protocol::digest_of(items);
  if (!ledger_has(chunk)) {
    in_flight_.insert(chunk);
    digests_[chunk] = digest;
    outgoing_[chunk] = Outgoing{.items = std::move(items), .send_at = now};
    return;
  }
  const auto known = digests_.find(chunk);
  if (known == digests_.end() || known->second != digest) {
    const auto [asked, is_new] = questions_.try_emplace(chunk, Question{.digest = digest});
    if (is_new || asked->second.digest != digest) {
      asked->second = {.digest = digest, .send_at = now};
    }
  }
}

std::optional<protocol::ChunkResult> JobState::take_result() {
  const auto next = std::ranges::find_if(
      results_, [&](const auto& result) { return !questions_.contains(result.chunk); });
  if (next == results_.end()) {
    return std::nullopt;
  }
  auto result = std::move(*next);
  results_.erase(next);
  return result;
}

void JobState::acknowledge(std::uint32_t chunk, Outbox& outbox) {
  received_.erase(chunk);
  in_flight_.erase(chunk);
  digests_.erase(chunk);
  acknowledged_.insert(chunk);
  outbox.push_back(protocol::ResultAck{.job_id = id_, .chunk = chunk});
}

}  // namespace tessera::client
