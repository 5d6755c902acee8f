#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tessera::kernels::cpu {

// The backend's threads, one per core. Each of them runs every job, over its own share of the
// batch; jobs run one after the other, in the order of submission. The owner's thread submits and
// waits; inside a job the members may meet at `meet`.
class Team {
 public:
  using Job = std::function<void(int member)>;

  explicit Team(int members);
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team();  // Lets submitted jobs end first.

  int members() const { return static_cast<int>(threads_.size()); }

  // Returns the job's ticket. The job must stay valid until `wait` on it returned.
  std::uint64_t submit(const Job* job);
  // Blocks until the ticket's job has ended on all members; throws FatalError if one threw.
  void wait(std::uint64_t ticket);
  void run(const Job& job) { wait(submit(&job)); }

  // Called by every member inside a job: returns when all of them have called. Throws when another
  // member's part of the job has failed, so that nobody waits for it.
  void meet();

 private:
  void work(int member);
  void fail(const std::string& reason);

  std::mutex mutex_;  // Guards all below but threads_.
  std::condition_variable changed_;
  std::deque<const Job*> jobs_;  // submitted and not finished; the front one is running
  std::uint64_t finished_ = 0;   // tickets up to this one have ended
  std::uint64_t submitted_ = 0;
  int members_done_ = 0;  // with the front job
  int members_met_ = 0;
  std::uint64_t meetings_ = 0;
  bool stopping_ = false;
  std::string failure_;  // of any job; the team is of no use after one
  std::vector<std::jthread> threads_;
};

}  // namespace tessera::kernels::cpu
