#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace tessera::kernels {

// Where the threads of a group of ranks wait for each other on the host. All ranks meet in the same
// order. After `abort` every present and future meeting throws FatalError, so that no rank waits
// for one that is gone. Thread-safe.
class HostMeeting {
 public:
  explicit HostMeeting(int size) : size_(size), offered_(static_cast<std::size_t>(size)) {}

  int size() const { return size_; }
  void meet();
  // Every rank's pointer, in rank order, on every rank.
  std::vector<void*> exchange(int rank, void* pointer);
  void abort();

 private:
  const int size_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::vector<void*> offered_;
  int arrived_ = 0;
  std::uint64_t generation_ = 0;
  bool aborted_ = false;
};

}  // namespace tessera::kernels
