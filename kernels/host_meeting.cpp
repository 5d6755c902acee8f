#include "kernels/host_meeting.hpp"

#include "common/check.hpp"

namespace tessera::kernels {

void HostMeeting::meet() {
  std::unique_lock lock(mutex_);
  const std::uint64_t generation = generation_;
  if (!aborted_ && ++arrived_ == size_) {
    arrived_ = 0;
    ++generation_;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return generation_ != generation || aborted_; });
  if (generation_ == generation) throw FatalError("another rank of the group has failed");
}

std::vector<void*> HostMeeting::exchange(int rank, void* pointer) {
  {
    const std::lock_guard lock(mutex_);
    offered_[static_cast<std::size_t>(rank)] = pointer;
  }
  meet();
  std::vector<void*> all;
  {
    const std::lock_guard lock(mutex_);
    all = offered_;
  }
  meet();
  return all;
}

void HostMeeting::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  changed_.notify_all();
}

}  // namespace tessera::kernels
