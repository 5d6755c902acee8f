#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace tessera::worker {

// Tasks on their way from one thread to another, in two lanes of which the taker asks for one or
// the other. Any thread may call any function.
template <typename Task>
class TaskQueue {
 public:
  enum class Lane : std::size_t { kBatches, kExpress };

  // False, leaving the task untouched, when the queue is closed.
  bool push(Task& task, Lane lane) {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return false;
      at(lane).push_back(std::move(task));
    }
    changed_.notify_one();
    return true;
  }

  std::optional<Task> take(Lane lane) {
    const std::lock_guard lock(mutex_);
    if (at(lane).empty()) return std::nullopt;
    std::optional<Task> task(std::move(at(lane).front()));
    at(lane).pop_front();
    return task;
  }

  bool has(Lane lane) const {
    const std::lock_guard lock(mutex_);
    return !lanes_[static_cast<std::size_t>(lane)].empty();
  }

  // Blocks until there is a task; false when the queue is closed and nothing is left in it.
  bool wait() {
    std::unique_lock lock(mutex_);
    const auto empty = [&] { return lanes_[0].empty() && lanes_[1].empty(); };
    changed_.wait(lock, [&] { return closed_ || !empty(); });
    return !empty();
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

 private:
  std::deque<Task>& at(Lane lane) { return lanes_[static_cast<std::size_t>(lane)]; }

  mutable std::mutex mutex_;  // Guards all below but changed_.
  std::condition_variable changed_;
  std::array<std::deque<Task>, 2> lanes_;
  bool closed_ = false;
};

}  // namespace tessera::worker
