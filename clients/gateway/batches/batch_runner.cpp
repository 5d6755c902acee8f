#include "clients/gateway/batches/batch_runner.hpp"

#include <algorithm>
#include <ctime>

#include "clients/gateway/metrics/gateway_metrics.hpp"
#include "common/log.hpp"

namespace tessera::gateway {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kLookEvery{1000};
constexpr milliseconds kAnswerWait{3000};
constexpr milliseconds kPutOff{5000};
// What is kept of ended batches, so that the ledger has room for new ones: those of the last 30
// days, and of these the newest, of a tenant and in all. The ledger takes twice as many.
constexpr std::chrono::minutes kDeleteEvery{10};
constexpr std::int64_t kKeepEndedS = 30LL * 86'400;
constexpr std::size_t kKeepOfTenant = 1000;
constexpr std::size_t kKeepInAll = 5000;

bool is_old(const BatchRecord& record, std::int64_t now) {
  const std::int64_t ended =
      std::max({record.completed_at.value_or(0), record.failed_at.value_or(0),
                record.expired_at.value_or(0), record.cancelled_at.value_or(0)});
  return ended + kKeepEndedS < now;
}

}  // namespace

BatchRunner::BatchRunner(BatchRunnerOptions options, FileStore& files, GatewayMetrics& metrics)
    : options_(std::move(options)),
      files_(files),
      metrics_(metrics),
      client_({.coordinator = options_.coordinator, .name = "tessera-gateway batches"}),
      delete_at_(Clock::now()) {
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

BatchRunner::~BatchRunner() {
  stop();
  threads_.clear();
}

void BatchRunner::wake() {
  const std::lock_guard lock(mutex_);
  ++wakes_;
  woken_.notify_all();
}

void BatchRunner::stop() {
  stop_ = true;
  wake();
}

void BatchRunner::work() {
  while (!stop_) {
    std::uint64_t wakes = 0;
    {
      const std::lock_guard lock(mutex_);
      wakes = wakes_;
    }
    clean_up();
    if (run_one()) {
      continue;
    }
    std::unique_lock lock(mutex_);
    woken_.wait_for(lock, kLookEvery, [&] { return stop_ || wakes_ != wakes; });
  }
}

std::vector<std::string> BatchRunner::free_batches() {
  std::vector<std::string> ids;
  protocol::RecordQuery query{
      .all_tenants = true, .prefix = std::string(kBatchIdPrefix), .open_only = true};
  bool more = true;
  while (more && !stop_) {
    auto page = client_.query_records(query, kAnswerWait);
    if (!page) {
      break;
    }
    for (const protocol::RecordInfo& info : page->records) {
      if (info.lease_left_ms == 0) {
        ids.push_back(info.id);
      }
    }
    more = page->more && !page->records.empty();
    query.after = more ? page->records.back().id : "";
  }
  std::ranges::reverse(ids);
  return ids;
}

bool BatchRunner::reserve(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto put_off = put_off_.find(id);
  if (put_off != put_off_.end() && Clock::now() < put_off->second) {
    return false;
  }
  return own_.insert(id).second;
}

// True when there was one.
bool BatchRunner::run_one() {
  for (const std::string& id : free_batches()) {
    if (stop_ || !reserve(id)) {
      continue;
    }
    const auto lease = BatchLease::take(client_, id, options_.lease, stop_);
    if (lease) {
      run(*lease);
    }
    const std::lock_guard lock(mutex_);
    own_.erase(id);
    if (lease) {
      return true;
    }
    put_off_[id] = Clock::now() + kLookEvery;  // Another was faster, or it cannot be read.
  }
  return false;
}

void BatchRunner::run(BatchLease& lease) {
  const std::string id = lease.record().id;
  const BatchWatcher watcher{
      .on_status = [&](BatchStatus status) { metrics_.on_job(id, std::string(to_string(status))); },
      .on_lines = [&](std::uint64_t completed,
                      std::uint64_t failed) { metrics_.on_job_lines(completed, failed); }};
  Result<void> done;
  try {
    BatchRun batch(client_, files_, lease, options_.run, watcher, stop_);
    done = batch.run();
  } catch (const std::exception& error) {
    done = Error{ErrorCode::kInternal, error.what()};
  }
  metrics_.on_job_left(id);
  const std::lock_guard lock(mutex_);
  put_off_.erase(id);
  if (!done) {
    log::warn("{} goes on later: {}", id, done.error().message);
    put_off_[id] = Clock::now() + kPutOff;
  }
}

void BatchRunner::clean_up() {
  {
    const std::lock_guard lock(mutex_);
    if (Clock::now() < delete_at_) {
      return;
    }
    delete_at_ = Clock::now() + kDeleteEvery;
  }
  remove_leftovers();
  delete_old();
}

// Work folders of batches that have ended: whoever ended one died before it removed its folder. One
// without a record stays: a ledger that is only the wrong one must not cost what was computed.
void BatchRunner::remove_leftovers() {
  for (const std::string& id : files_.batches_at_work()) {
    auto reply = client_.query_records({.all_tenants = true, .id = id}, kAnswerWait);
    if (stop_ || (!reply && reply.error().code != ErrorCode::kNotFound)) {
      return;
    }
    if (reply && reply->records.size() == 1 && !reply->records.front().open) {
      log::info("{} has ended: the work folder that was left is removed", id);
      files_.remove_work_folder(id);
    }
  }
}

// The ledger has room for so many records.
void BatchRunner::delete_old() {
  protocol::RecordQuery query{.all_tenants = true, .prefix = std::string(kBatchIdPrefix)};
  std::vector<protocol::RecordInfo> gone;  // Deleted at the end: pages go on behind one of them.
  std::map<std::string, std::size_t> of_tenant;
  std::size_t in_all = 0;
  const std::int64_t now = std::time(nullptr);
  for (bool more = true; more && !stop_;) {
    auto page = client_.query_records(query, kAnswerWait);
    if (!page || page->records.empty()) {
      break;
    }
    more = page->more;
    query.after = page->records.back().id;
    std::vector<std::string> contents = contents_of(*page);
    if (contents.size() < page->records.size()) {
      return;
    }
    for (std::size_t i = 0; i < contents.size(); ++i) {
      const protocol::RecordInfo& info = page->records[i];
      ++in_all;
      ++of_tenant[info.tenant];
      const bool beyond = in_all > kKeepInAll || of_tenant[info.tenant] > kKeepOfTenant;
      const auto record = batch_of(info, std::move(contents[i]));
      if (record && !is_open(*record) && (beyond || is_old(*record, now))) {
        gone.push_back(info);
      }
    }
  }
  for (const protocol::RecordInfo& info : gone) {
    if (!stop_) {
      (void)client_.delete_record(
          {.id = info.id, .tenant = info.tenant, .expected_version = info.version}, kAnswerWait);
    }
  }
}

}  // namespace tessera::gateway
