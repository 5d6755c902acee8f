#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tessera::worker {

// The threads of a group's ranks, one each, and the watch over them. Owned and called by one
// thread, which posts tasks that every rank runs, in the order of the posts.
//
// A rank whose task throws ends the group: the others are woken where they wait on the host, and
// the owner's next call throws FatalError naming the rank and the cause. So does a standstill. A
// GPU that waits for a rank that is gone cannot be woken, so after a failure the threads are left
// behind and whatever they use lives on; the process is expected to exit.
class RankThreads {
 public:
  using Task = std::function<void(int rank)>;
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::vector<std::string> names;  // of the ranks' devices; their number is the group's size
    // How far a rank's collectives are; read by the owner's thread.
    std::function<std::uint64_t(int rank)> progress = [](int) { return 0; };
    std::function<void()> wake = [] {};  // lets waiting ranks go, after a failure
    // How long ranks and owner look for news before they sleep: waking up takes some 50 us. Zero
    // where threads are more than cores.
    Clock::duration spin{};
  };

  explicit RankThreads(Options options);
  ~RankThreads();  // runs what was posted, unless the group has failed

  int size() const;
  // Returns the task's ticket. `task` is copied to all ranks and must outlive nothing of the owner
  // that a failure could leave behind in use: capture shared owners.
  std::uint64_t post(Task task);
  // Blocks until every rank has run the ticket's task. No task done and no collective finished for
  // `standstill_max` is a hang.
  void wait(std::uint64_t ticket, Clock::duration standstill_max);

 private:
  struct State;
  static void run(State& state, int rank);
  [[noreturn]] void report_standstill(Clock::duration standstill) const;
  std::vector<std::uint64_t> positions() const;

  std::shared_ptr<State> state_;
};

}  // namespace tessera::worker
