#include "clients/gateway/batches/batch_lease.hpp"

#include "clients/gateway/http/request_id.hpp"
#include "common/log.hpp"

namespace tessera::gateway {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kPutWait{3000};
constexpr milliseconds kAgain{200};
constexpr milliseconds kRenewEvery{1000};

std::string text_of(const protocol::Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::unique_ptr<BatchLease> BatchLease::take(client::Client& client, const std::string& id,
                                             milliseconds length, const std::atomic<bool>& stop) {
  const std::string owner = "gateway-" + http::random_hex(12);
  const auto asked_at = Clock::now();
  auto reply = client.claim_record(
      {.id = id, .owner = owner, .lease_ms = static_cast<std::uint32_t>(length.count())},
      length / 2);
  if (!reply || reply->records.size() != 1) {
    return nullptr;
  }
  const protocol::RecordInfo& info = reply->records.front();
  auto record = batch_of(info, text_of(reply->payload));
  if (!record) {
    log::error("the record {} cannot be read: it {}", id, record.error().message);
    return nullptr;
  }
  return std::unique_ptr<BatchLease>(
      new BatchLease(client, owner, length, info, std::move(*record), asked_at, stop));
}

BatchLease::BatchLease(client::Client& client, std::string owner, milliseconds length,
                       const protocol::RecordInfo& info, BatchRecord record,
                       Clock::time_point asked_at, const std::atomic<bool>& stop)
    : client_(client),
      id_(info.id),
      owner_(std::move(owner)),
      length_(length),
      stop_(stop),
      holder_(info.version),
      version_(info.version),
      record_(std::move(record)),
      until_(asked_at + length),
      cancel_wanted_(record_.status == BatchStatus::kCancelling),
      renewer_([this](const std::stop_token& stop) { renew(stop); }) {}

BatchLease::~BatchLease() {
  renewer_.request_stop();
  renewed_.notify_all();
  renewer_.join();
  if (held()) {
    (void)client_.claim_record({.id = id_, .owner = owner_, .lease_ms = 0}, kRenewEvery);
  }
}

bool BatchLease::held() const { return !lost_ && Clock::now() < until_.load(); }

void BatchLease::renew(const std::stop_token& stop) {
  const milliseconds every = std::min(kRenewEvery, length_ / 4);
  while (!stop.stop_requested() && !lost_) {
    {
      std::unique_lock lock(mutex_);
      renewed_.wait_for(lock, stop, every, [] { return false; });
    }
    if (!stop.stop_requested()) {
      renew_once();
    }
  }
}

void BatchLease::renew_once() {
  const auto asked_at = Clock::now();
  auto reply = client_.claim_record(
      {.id = id_, .owner = owner_, .lease_ms = static_cast<std::uint32_t>(length_.count())},
      length_ / 2);
  if (!reply) {
    const ErrorCode code = reply.error().code;
    lost_ = lost_ || code == ErrorCode::kConflict || code == ErrorCode::kNotFound;
    return;
  }
  if (asked_at >= until_.load()) {  // It was over meanwhile, and may have been another's.
    lost_ = true;
    return;
  }
  until_ = asked_at + length_;
  const auto record = read_batch(text_of(reply->payload));
  if (record && record->status == BatchStatus::kCancelling) {
    cancel_wanted_ = true;
  }
}

bool BatchLease::update(const std::function<void(BatchRecord&)>& change) {
  while (held()) {
    BatchRecord changed = record_;
    change(changed);
    bool again = false;
    if (put(changed, again)) {
      record_ = std::move(changed);
      cancel_wanted_ = cancel_wanted_ || record_.status == BatchStatus::kCancelling;
      return true;
    }
    if (!again || stop_) {
      return false;
    }
  }
  return false;
}

bool BatchLease::put(const BatchRecord& changed, bool& again) {
  protocol::RecordPut change = put_of(changed, version_);
  change.id = id_;  // Whatever the content says.
  auto reply = client_.put_record(std::move(change), kPutWait);
  if (reply && reply->records.size() == 1) {
    version_ = reply->records.front().version;
    return true;
  }
  again = true;
  if (!reply && reply.error().code == ErrorCode::kConflict) {
    return read_again(changed, again);
  }
  if (!reply && reply.error().code == ErrorCode::kNotFound) {
    lost_ = true;
  }
  std::this_thread::sleep_for(kAgain);
  return false;
}

// The version is not ours: our own put that was asked twice, a cancel, or another holder.
bool BatchLease::read_again(const BatchRecord& changed, bool& again) {
  auto reply = client_.query_records({.all_tenants = true, .id = id_}, kPutWait);
  if (!reply || reply->records.size() != 1) {
    lost_ = lost_ || (!reply && reply.error().code == ErrorCode::kNotFound);
    return false;
  }
  const protocol::RecordInfo& info = reply->records.front();
  std::string content = text_of(reply->payload);
  auto theirs = batch_of(info, content);
  if (info.owner != owner_ || !theirs) {
    lost_ = true;
    again = false;
    return false;
  }
  if (info.version == version_) {  // A change is under way.
    std::this_thread::sleep_for(kAgain);
    return false;
  }
  version_ = info.version;
  if (content == stored_json(changed)) {
    return true;
  }
  record_ = std::move(*theirs);
  cancel_wanted_ = cancel_wanted_ || record_.status == BatchStatus::kCancelling;
  return false;
}

}  // namespace tessera::gateway
