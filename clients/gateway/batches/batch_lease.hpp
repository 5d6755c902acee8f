#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "clients/cpp/client.hpp"
#include "clients/gateway/batches/batch_record.hpp"

namespace tessera::gateway {

// The right to work on a batch: the lease on its record, renewed by a thread of its own, and the
// record as its holder last knew it. Another who takes the lease over raises the record's version,
// so whatever the former holder still puts is refused. update() and record() are for one thread,
// the others for any.
class BatchLease {
 public:
  using Clock = std::chrono::steady_clock;

  // Claims the record; nothing when another has it or it cannot be had now. Once `stop` is set
  // nothing is tried twice.
  static std::unique_ptr<BatchLease> take(client::Client& client, const std::string& id,
                                          std::chrono::milliseconds length,
                                          const std::atomic<bool>& stop);
  ~BatchLease();  // Gives it back.
  BatchLease(const BatchLease&) = delete;
  BatchLease& operator=(const BatchLease&) = delete;

  // False from the moment at which another may have it.
  bool held() const;
  bool cancel_wanted() const { return cancel_wanted_; }
  // Unlike that of any holder before.
  std::uint64_t holder() const { return holder_; }
  const BatchRecord& record() const { return record_; }

  // Makes a change of the record durable; `change` is made again on what another has changed
  // meanwhile. Waits as long as the lease is held: false when it is not any more, or it was told to
  // stop.
  bool update(const std::function<void(BatchRecord&)>& change);

 private:
  BatchLease(client::Client& client, std::string owner, std::chrono::milliseconds length,
             const protocol::RecordInfo& info, BatchRecord record, Clock::time_point asked_at,
             const std::atomic<bool>& stop);
  void renew(const std::stop_token& stop);
  void renew_once();
  bool put(const BatchRecord& changed, bool& again);
  bool read_again(const BatchRecord& changed, bool& again);

  client::Client& client_;
  const std::string id_;
  const std::string owner_;  // Random: no two holders have the same.
  const std::chrono::milliseconds length_;
  const std::atomic<bool>& stop_;
  const std::uint64_t holder_;
  std::uint64_t version_;
  BatchRecord record_;
  std::atomic<Clock::time_point> until_;
  std::atomic<bool> lost_ = false;
  std::atomic<bool> cancel_wanted_ = false;
  std::mutex mutex_;  // For renewed_ alone.
  std::condition_variable_any renewed_;
  std::jthread renewer_;
};

}  // namespace tessera::gateway
