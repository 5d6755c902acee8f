#include "kernels/cpu/team.hpp"

#include "common/check.hpp"

// Present where oneDNN's build runs on OpenMP (Debian's and Ubuntu's do).
extern "C" void omp_set_num_threads(int) __attribute__((weak));

namespace tessera::kernels::cpu {

Team::Team(int members) {
  CHECK(members > 0);
  threads_.reserve(static_cast<std::size_t>(members));
  for (int member = 0; member < members; ++member) {
    threads_.emplace_back([this, member] { work(member); });
  }
}

Team::~Team() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

std::uint64_t Team::submit(const Job* job) {
  std::uint64_t ticket;
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(job);
    ticket = ++submitted_;
  }
  changed_.notify_all();
  return ticket;
}

void Team::wait(std::uint64_t ticket) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_ >= ticket; });
  if (!failure_.empty()) {
    throw FatalError("cpu backend: " + failure_);
  }
}

void Team::meet() {
  std::unique_lock lock(mutex_);
  if (++members_met_ == static_cast<int>(threads_.size())) {
    members_met_ = 0;
    ++meetings_;
    lock.unlock();
    changed_.notify_all();
    return;
  }
  const std::uint64_t meeting = meetings_;
  changed_.wait(lock, [&] { return meetings_ != meeting || !failure_.empty(); });
  if (meetings_ == meeting) {
    throw FatalError("another thread failed");
  }
}

void Team::fail(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) {
      failure_ = reason;
    }
  }
  changed_.notify_all();
}

void Team::work(int member) {
  // One OpenMP thread inside each of ours: the library must not start a team of its own.
  if (omp_set_num_threads != nullptr) {
    omp_set_num_threads(1);
  }
  for (std::uint64_t ticket = 1;; ++ticket) {
    const Job* job = nullptr;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] {
        return (finished_ + 1 == ticket && !jobs_.empty()) || (stopping_ && jobs_.empty());
      });
      if (jobs_.empty()) {
        return;
      }
      job = jobs_.front();
    }
    try {
      (*job)(member);
    } catch (const std::exception& error) {
      fail(error.what());
    }
    const std::lock_guard lock(mutex_);
    if (++members_done_ == static_cast<int>(threads_.size())) {
      members_done_ = 0;
      ++finished_;
      jobs_.pop_front();
      changed_.notify_all();
    }
  }
}

}  // namespace tessera::kernels::cpu
