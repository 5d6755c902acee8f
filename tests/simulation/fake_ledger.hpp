#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/ledger/ledger.hpp"

namespace tessera::coordinator::simulation {

// What the scripts do in Redis, in memory: the ledger that outlives coordinators, and the cache.
class FakeLedger {
 public:
  // The new term's number, above the last one and `above`.
  std::uint64_t become_leader(std::uint64_t above = 0);
  // Who leads, and the last term before it; as of the last become_leader().
  ledger::Term term() const { return {ledger_id_, epoch_, sequence_}; }
  std::uint64_t term_before() const { return term_before_; }
  ledger::Reply run(const ledger::Operation& operation, const ledger::Term& term);
  ledger::Reply run(const ledger::Operation& operation, std::uint64_t epoch) {
    return run(operation, {.ledger_id = ledger_id_, .number = epoch});
  }
  // As FLUSHALL, or a restart without a file.
  void empty();
  // Becomes as `copy`, a former state of this one.
  void restore(const FakeLedger& copy);
  std::vector<ledger::StoredJob> load() const;
  std::vector<ledger::StoredRecord> load_records() const;
  // Contents of chunks and results that are kept; none are left when all jobs have ended.
  std::size_t contents() const { return contents_.size(); }
  // Whether the ledger has, or has had, the chunk's items, and its result.
  bool has_accepted(const JobId& job, std::uint32_t chunk) const;
  bool has_stored(const JobId& job, std::uint32_t chunk) const;
  // Accepted items of jobs that have not ended, without a result here.
  std::uint64_t owed_items() const;

  std::map<CacheKey, protocol::Bytes> cache;
  // With more in its contents it refuses what takes memory and frees none.
  std::size_t bytes_max = std::numeric_limits<std::size_t>::max();
  // Faults that tests plant.
  bool compares_digests = true;
  bool notices_losses = true;

 private:
  void apply(const ledger::CreateJob& op);
  void apply(const ledger::AcceptChunk& op);
  void apply(const ledger::CheckChunk&) {}
  void apply(const ledger::CheckTerm&) {}
  void apply(const ledger::StoreResult& op);
  void apply(const ledger::AckResult& op);
  void apply(const ledger::CloseJob& op);
  void apply(const ledger::EndJob& op);
  void apply(const ledger::ForgetJob& op);
  void apply(const ledger::FetchChunk&) {}
  void apply(const ledger::FetchResult&) {}
  void apply(const ledger::PutRecord& op) { records_[op.id] = op; }
  void apply(const ledger::DropRecord& op) { records_.erase(op.id); }

  bool refuses(const ledger::Operation& operation) const;
  // Of a record that is to be changed: is its version the one that the change is of?
  bool conflicts(const ledger::Operation& operation) const;
  std::uint64_t version_of(const std::string& record) const;
  // How the ledger's chunk stands to one with this digest.
  ledger::Status compare(const JobId& job, std::uint32_t chunk,
                         const protocol::ChunkDigest& digest) const;

  using ContentKey = std::pair<std::string, std::uint32_t>;
  ledger::Status fence(const ledger::Term& term) const;

  std::uint64_t epoch_ = 0;  // 0: empty.
  std::uint64_t term_before_ = 0;
  std::uint64_t sequence_ = 0;
  std::string ledger_id_;
  std::uint64_t founded_ = 0;  // Ledgers.
  std::map<JobId, ledger::StoredJob> jobs_;
  std::map<std::string, ledger::StoredRecord> records_;
  std::map<ContentKey, protocol::Bytes> contents_;       // "in:" or "out:" and the job; chunk
  std::map<ContentKey, protocol::ChunkDigest> digests_;  // By job and chunk.
};

}  // namespace tessera::coordinator::simulation
