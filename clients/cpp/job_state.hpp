#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "clients/cpp/request_table.hpp"
#include "common/range_set.hpp"
#include "common/wire/chunk_digest.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::client {

// The client's side of one job: which chunks wait to be sent, which are in the coordinator's
// ledger, which results the caller holds and which it has declared safe. Pure rules, time is an
// argument; the owner synchronises. Life of a chunk:
//   submit -> [sent, ChunkAck] -> result -> taken by the caller -> acknowledge -> forgotten
class JobState {
 public:
  explicit JobState(protocol::OpenJob open) : open_(std::move(open)) {}

  // from the connection

  // The OpenJob, when it is to be sent: at first, after a lost connection, when it was put off.
  bool open_due(TimePoint now) const { return !opened_ && !failure_ && open_at_ <= now; }
  protocol::OpenJob open_message(std::uint64_t request_id, TimePoint now);
  void on_open_refused(const protocol::ErrorReply& error, TimePoint now);
  bool awaits(std::uint64_t request_id) const { return request_id == open_.request_id; }
  void on_opened(const protocol::JobOpened& opened, TimePoint now, Outbox& outbox);
  void on_chunk_ack(const protocol::ChunkAck& ack, TimePoint now);
  void on_result(protocol::ChunkResult result, Outbox& outbox);
  void on_progress(const protocol::JobProgress& progress);
  void on_disconnected(TimePoint now);
  void fail(Error error);
  // Whether something that was sent waits for an answer.
  bool waits() const { return !opened_ || !outgoing_.empty() || !questions_.empty(); }
  // Appends the chunks that are due. Nothing is sent before the job is open on this connection.
  void collect(TimePoint now, Outbox& outbox);
  TimePoint next_due() const;

  // from the caller

  // Whether submit(chunk) may be called: the window has room, or the ledger has the chunk already.
  bool has_room(std::uint32_t chunk) const;
  // Takes the items, unless the ledger has the chunk: then it is asked whether they are these.
  void submit(std::uint32_t chunk, protocol::ItemBlock& items, TimePoint now);
  // Whether what submit() has asked about the chunk is not answered yet.
  bool is_in_question(std::uint32_t chunk) const { return questions_.contains(chunk); }
  std::optional<protocol::ChunkResult> take_result();
  // The result of `chunk` is safe; also for chunks of an earlier run of the caller.
  void acknowledge(std::uint32_t chunk, Outbox& outbox);

  bool was_opened() const { return !id_.empty(); }
  const std::string& id() const { return id_; }
  const std::optional<Error>& failure() const { return failure_; }
  protocol::JobState state() const { return state_; }
  // What the coordinator's ledger held when the job was opened first.
  const RangeSet& accepted_before() const { return accepted_before_; }
  const RangeSet& delivered_before() const { return delivered_before_; }
  std::uint64_t acknowledged() const { return acknowledged_.size(); }

 private:
  struct Outgoing {
    protocol::ItemBlock items;
    TimePoint send_at;
    std::uint32_t refusals = 0;
  };
  struct Question {
    protocol::ChunkDigest digest;
    TimePoint send_at;
    std::uint32_t refusals = 0;
  };
  bool ledger_has(std::uint32_t chunk) const { return accepted_.contains(chunk); }
  void on_refused_chunk(const protocol::ChunkAck& ack, TimePoint& send_at, std::uint32_t& refusals,
                        TimePoint now);
  void reconcile(const protocol::JobOpened& opened, TimePoint now, Outbox& outbox);

  protocol::OpenJob open_;
  std::string id_;
  bool opened_ = false;  // On this connection.
  TimePoint open_at_{};
  std::uint32_t open_refusals_ = 0;
  protocol::JobState state_ = protocol::JobState::kOpen;
  std::uint32_t window_chunks_ = 1;
  RangeSet accepted_before_;
  RangeSet delivered_before_;
  RangeSet accepted_;                           // In the ledger, as far as we know.
  RangeSet acknowledged_;                       // Declared safe by the caller.
  std::set<std::uint32_t> in_flight_;           // Submitted or accepted, not acknowledged.
  std::set<std::uint32_t> received_;            // Result here, not acknowledged.
  std::map<std::uint32_t, Outgoing> outgoing_;  // Not in the ledger yet.
  // Of chunks in flight that the caller submitted: what their items are.
  std::map<std::uint32_t, protocol::ChunkDigest> digests_;
  // In the ledger; is it with the caller's items? Until the answer their results are held back.
  std::map<std::uint32_t, Question> questions_;
  std::deque<protocol::ChunkResult> results_;  // Not taken yet.
  std::optional<Error> failure_;
};

}  // namespace tessera::client
