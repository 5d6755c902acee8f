#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace tessera::gateway::http {

// One thread's event loop. Everything that belongs to it (connections, the link to the coordinator,
// handlers) runs on the thread inside run() and needs no lock; other threads reach it by post().
class Loop {
 public:
  using Task = std::function<void()>;

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void run();   // Until stop(). What was posted and did not run by then is dropped.
  void stop();  // Any thread.
  // Runs `task` on the loop's thread. Any thread.
  void post(Task task);
  // The loop's thread: runs `task` behind all that is ready now, so once at the end of this turn.
  void at_end_of_turn(Task task);
  // The loop's thread. Once, after `delay`; a task that need not run any more must see so itself.
  void after(std::chrono::milliseconds delay, Task task);
  // The loop's thread, or before run(): again and again, until the loop ends.
  void every(std::chrono::milliseconds period, Task task);

  // Calls `ready` each time that `fd` has become readable, until it is destroyed. Does not own fd.
  class Watch {
   public:
    virtual ~Watch() = default;
  };
  std::unique_ptr<Watch> watch_readable(int fd, Task ready);

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// A thread beside the loops, for work that would make a turn of a loop too long: reading a large
// body. Tasks run one after the other and hand their result back by Loop::post.
class SideThread {
 public:
  SideThread();
  ~SideThread();  // Finishes the task that runs; drops the others.
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;
  void post(Loop::Task task);  // Any thread.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::gateway::http
