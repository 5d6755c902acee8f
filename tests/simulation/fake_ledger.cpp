#include "tests/simulation/fake_ledger.hpp"

#include <algorithm>

namespace tessera::coordinator::simulation {
namespace {

// As SETBIT: returns the bit's former value.
bool set_bit(protocol::Bytes& bitmap, std::uint32_t bit) {
  if (bitmap.size() <= bit / 8) {
    bitmap.resize(bit / 8 + 1);
  }
  const auto mask = static_cast<std::byte>(0x80U >> (bit % 8));
  const bool before = (bitmap[bit / 8] & mask) != std::byte{0};
  bitmap[bit / 8] |= mask;
  return before;
}

bool has_bit(const protocol::Bytes& bitmap, std::uint32_t bit) {
  return bitmap.size() > bit / 8 &&
         (bitmap[bit / 8] & static_cast<std::byte>(0x80U >> (bit % 8))) != std::byte{0};
}

}  // namespace

std::uint64_t FakeLedger::become_leader(std::uint64_t above) {
  if (ledger_id_.empty()) {
    ledger_id_ = std::string(31, '0') + static_cast<char>('a' + founded_++ % 26);
  }
  term_before_ = epoch_;
  epoch_ = std::max(epoch_, above) + 1;
  ++sequence_;
  return epoch_;
}

bool FakeLedger::has_accepted(const JobId& job, std::uint32_t chunk) const {
  const auto found = jobs_.find(job);
  return found != jobs_.end() && has_bit(found->second.accepted, chunk);
}

bool FakeLedger::has_stored(const JobId& job, std::uint32_t chunk) const {
  const auto found = jobs_.find(job);
  return found != jobs_.end() && has_bit(found->second.done, chunk);
}

void FakeLedger::empty() {
  jobs_.clear();
  contents_.clear();
  digests_.clear();
  records_.clear();
  cache.clear();
  ledger_id_.clear();
  epoch_ = term_before_ = sequence_ = 0;
}

void FakeLedger::restore(const FakeLedger& copy) {
  const std::uint64_t founded = founded_;
  *this = copy;
  founded_ = founded;  // No id is given twice.
}

ledger::Status FakeLedger::fence(const ledger::Term& term) const {
  if (epoch_ != term.number || ledger_id_ != term.ledger_id) {
    const bool led = epoch_ != 0 && (ledger_id_ != term.ledger_id || epoch_ > term.number);
    return led ? ledger::Status::kFenced : ledger::Status::kWentBack;
  }
  return sequence_ < term.sequence ? ledger::Status::kWentBack : ledger::Status::kDone;
}

ledger::Reply FakeLedger::run(const ledger::Operation& operation, const ledger::Term& term) {
  const auto fetched = [&](const char* kind, const JobId& job, std::uint32_t chunk) {
    const auto found = contents_.find({kind + job, chunk});
    return ledger::Reply{.content = found == contents_.end() ? protocol::Bytes() : found->second};
  };
  if (const auto* fetch = std::get_if<ledger::FetchChunk>(&operation)) {
    return fetched("in:", fetch->job, fetch->chunk);
  }
  if (const auto* fetch = std::get_if<ledger::FetchResult>(&operation)) {
    return fetched("out:", fetch->job, fetch->chunk);
  }
  if (const ledger::Status status = fence(term); status != ledger::Status::kDone) {
    const bool noticed = status == ledger::Status::kFenced || notices_losses;
    return {.status = noticed ? status : ledger::Status::kFailed};
  }
  if (const auto* create = std::get_if<ledger::CreateJob>(&operation)) {
    const auto found = jobs_.find(create->job);
    if (found != jobs_.end() &&
        (found->second.spec != create->spec || !found->second.accepted.empty())) {
      return {.status = ledger::Status::kConflict};
    }
  }
  if (conflicts(operation)) {
    return {.status = ledger::Status::kConflict};
  }
  if (const auto* check = std::get_if<ledger::CheckChunk>(&operation)) {
    return {.status = compare(check->job, check->chunk, check->digest)};
  }
  if (const auto* accept = std::get_if<ledger::AcceptChunk>(&operation)) {
    const ledger::Status status = compare(accept->job, accept->chunk, accept->digest);
    if (status != ledger::Status::kMissing) {
      return {.status = status};
    }
  }
  if (refuses(operation)) {
    return {.status = ledger::Status::kFailed};
  }
  std::visit([&](const auto& op) { apply(op); }, operation);
  return {.sequence = ++sequence_};
}

std::uint64_t FakeLedger::version_of(const std::string& record) const {
  const auto found = records_.find(record);
  return found == records_.end() ? 0 : found->second.version;
}

bool FakeLedger::conflicts(const ledger::Operation& operation) const {
  if (const auto* put = std::get_if<ledger::PutRecord>(&operation)) {
    const std::uint64_t version = version_of(put->id);
    return version != put->version && version != put->version - 1;
  }
  if (const auto* drop = std::get_if<ledger::DropRecord>(&operation)) {
    const std::uint64_t version = version_of(drop->id);
    return version != 0 && version != drop->version - 1;
  }
  return false;
}

ledger::Status FakeLedger::compare(const JobId& job, std::uint32_t chunk,
                                   const protocol::ChunkDigest& digest) const {
  const auto found = jobs_.find(job);
  if (found == jobs_.end() || !has_bit(found->second.accepted, chunk)) {
    return ledger::Status::kMissing;
  }
  const auto kept = digests_.find({job, chunk});
  const bool same = kept == digests_.end() || kept->second == digest || !compares_digests;
  return same ? ledger::Status::kDone : ledger::Status::kConflict;
}

bool FakeLedger::refuses(const ledger::Operation& operation) const {
  if (!std::holds_alternative<ledger::CreateJob>(operation) &&
      !std::holds_alternative<ledger::AcceptChunk>(operation) &&
      !std::holds_alternative<ledger::CloseJob>(operation)) {
    return false;
  }
  std::size_t bytes = 0;
  for (const auto& [key, content] : contents_) {
    bytes += content.size();
  }
  return bytes > bytes_max;
}

std::uint64_t FakeLedger::owed_items() const {
  std::uint64_t items = 0;
  for (const auto& [id, job] : jobs_) {
    const bool ended =
        job.state == protocol::JobState::kDone || job.state == protocol::JobState::kCancelled;
    items += ended ? 0 : job.items_accepted - job.items_done;
  }
  return items;
}

void FakeLedger::apply(const ledger::CreateJob& op) {
  jobs_.try_emplace(op.job, ledger::StoredJob{.job = op.job,
                                              .job_key = op.job_key,
                                              .tenant = op.tenant,
                                              .spec = op.spec,
                                              .fingerprint = {},
                                              .priority = op.priority,
                                              .accepted = {},
                                              .done = {},
                                              .delivered = {}});
}

void FakeLedger::apply(const ledger::AcceptChunk& op) {
  ledger::StoredJob& job = jobs_.at(op.job);
  if (!set_bit(job.accepted, op.chunk)) {
    contents_[{"in:" + op.job, op.chunk}] = op.content;
    digests_[{op.job, op.chunk}] = op.digest;
    job.items_accepted += op.items;
    job.state = protocol::JobState::kRunning;
  }
}

void FakeLedger::apply(const ledger::StoreResult& op) {
  ledger::StoredJob& job = jobs_.at(op.job);
  if (!set_bit(job.done, op.chunk)) {
    contents_[{"out:" + op.job, op.chunk}] = op.content;
    contents_.erase({"in:" + op.job, op.chunk});
    job.fingerprint = op.fingerprint;
    job.items_done += op.items;
    job.items_failed += op.items_failed;
    job.tokens_done += op.tokens;
    job.cache_hits += op.cache_hits;
    job.cache_joins += op.cache_joins;
    job.cache_misses += op.cache_misses;
  }
}

void FakeLedger::apply(const ledger::AckResult& op) {
  set_bit(jobs_.at(op.job).delivered, op.chunk);
  contents_.erase({"out:" + op.job, op.chunk});
}

void FakeLedger::apply(const ledger::CloseJob& op) {
  jobs_.at(op.job).closed = true;
  jobs_.at(op.job).chunks_total = op.chunks;
}

void FakeLedger::apply(const ledger::EndJob& op) {
  jobs_.at(op.job).state = op.state;
  for (const std::uint32_t chunk : op.chunks) {
    contents_.erase({"in:" + op.job, chunk});
    contents_.erase({"out:" + op.job, chunk});
  }
}

std::vector<ledger::StoredRecord> FakeLedger::load_records() const {
  std::vector<ledger::StoredRecord> records;
  for (const auto& [id, record] : records_) {
    records.push_back(record);
  }
  return records;
}

void FakeLedger::apply(const ledger::ForgetJob& op) {
  jobs_.erase(op.job);
  std::erase_if(digests_, [&](const auto& entry) { return entry.first.first == op.job; });
}

std::vector<ledger::StoredJob> FakeLedger::load() const {
  std::vector<ledger::StoredJob> jobs;
  for (const auto& [id, job] : jobs_) {
    jobs.push_back(job);
  }
  return jobs;
}

}  // namespace tessera::coordinator::simulation
