#include "worker/group/rank_threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "common/check.hpp"

namespace tessera::worker {
namespace {

constexpr std::chrono::milliseconds kWatchInterval{200};

std::string rank_name(int rank, std::size_t size, const std::string& device) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size) + " (" + device + ")";
}

constexpr std::chrono::milliseconds kSettleTime{100};

template <typename Done>
void spin_until(RankThreads::Clock::duration longest, Done done) {
  if (longest.count() == 0) return;
  const auto end = RankThreads::Clock::now() + longest;
  while (!done() && RankThreads::Clock::now() < end) {
  }
}

}  // namespace

struct RankThreads::State {
  Options options;
  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  struct Rank {
    std::deque<Task> tasks;
    std::thread thread;
  };
  std::vector<Rank> ranks;
  std::atomic<std::uint64_t> posted = 0;             // written under the lock, as are these:
  std::vector<std::atomic<std::uint64_t>> finished;  // tickets of each rank
  std::atomic<bool> failed = false;
  std::string failure;  // of the first rank that failed
  bool stopping = false;

  std::string others_wait_for(int reporter) const;
};

// GPUs that reach each other's memory fail together, so the rank that hears of a failure first is
// not always the one that caused it. That one is behind: it came to no further collective, and the
// others, given the time to come to theirs, are all at the same one.
std::string RankThreads::State::others_wait_for(int reporter) const {
  std::this_thread::sleep_for(kSettleTime);
  std::vector<std::uint64_t> at;
  for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
    at.push_back(options.progress(rank));
  }
  const auto least = std::ranges::min_element(at);
  const auto rank = static_cast<int>(least - at.begin());
  if (rank == reporter || std::ranges::count(at, *least) != 1) return "";
  return "; the others were waiting for " +
         rank_name(rank, at.size(), options.names[static_cast<std::size_t>(rank)]) +
         ", whose device is the likely cause";
}

RankThreads::RankThreads(Options options) : state_(std::make_shared<State>()) {
  state_->options = std::move(options);
  state_->ranks.resize(state_->options.names.size());
  state_->finished = std::vector<std::atomic<std::uint64_t>>(state_->ranks.size());
  CHECK(!state_->ranks.empty());
  for (int rank = 0; rank < size(); ++rank) {
    state_->ranks[static_cast<std::size_t>(rank)].thread =
        std::thread([state = state_, rank] { run(*state, rank); });
  }
}

RankThreads::~RankThreads() {
  bool failed = false;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    failed = !state_->failure.empty();
  }
  state_->changed.notify_all();
  for (State::Rank& rank : state_->ranks) {
    if (failed) {
      rank.thread.detach();
    } else {
      rank.thread.join();
    }
  }
}

int RankThreads::size() const { return static_cast<int>(state_->ranks.size()); }

std::uint64_t RankThreads::post(Task task) {
  const std::lock_guard lock(state_->mutex);
  if (!state_->failure.empty()) throw FatalError(state_->failure);
  for (State::Rank& rank : state_->ranks) rank.tasks.push_back(task);
  state_->changed.notify_all();
  return ++state_->posted;
}

void RankThreads::run(State& state, int rank) {
  const auto index = static_cast<std::size_t>(rank);
  std::uint64_t taken = 0;
  while (true) {
    spin_until(state.options.spin, [&] { return state.posted > taken || state.failed; });
    Task task;
    {
      std::unique_lock lock(state.mutex);
      State::Rank& own = state.ranks[index];
      state.changed.wait(
          lock, [&] { return !own.tasks.empty() || state.stopping || !state.failure.empty(); });
      if (own.tasks.empty() || !state.failure.empty()) return;
      task = std::move(own.tasks.front());
      own.tasks.pop_front();
      ++taken;
    }
    std::string failure;
    try {
      task(rank);
    } catch (const std::exception& error) {
      failure = rank_name(rank, state.ranks.size(), state.options.names[index]) + ": " +
                error.what() + state.others_wait_for(rank);
    }
    task = nullptr;
    {
      const std::lock_guard lock(state.mutex);
      if (!failure.empty() && state.failure.empty()) state.failure = failure;
      if (!failure.empty()) state.failed = true;
      state.finished[index] += failure.empty() ? 1 : 0;
    }
    if (!failure.empty()) state.options.wake();
    state.changed.notify_all();
  }
}

std::vector<std::uint64_t> RankThreads::positions() const {
  std::vector<std::uint64_t> positions;
  for (int rank = 0; rank < size(); ++rank) {
    positions.push_back(state_->options.progress(rank) +
                        state_->finished[static_cast<std::size_t>(rank)]);
  }
  return positions;
}

void RankThreads::wait(std::uint64_t ticket, Clock::duration standstill_max) {
  const auto done = [&] {
    return state_->failed ||
           std::ranges::all_of(state_->finished, [&](const auto& last) { return last >= ticket; });
  };
  // The owner looks for longer, as a batch takes longer than the way from post to post.
  spin_until(state_->options.spin * 100, done);
  std::unique_lock lock(state_->mutex);
  std::vector<std::uint64_t> seen = positions();
  Clock::time_point moved = Clock::now();
  while (!state_->changed.wait_for(lock, kWatchInterval, done)) {
    std::vector<std::uint64_t> now = positions();
    if (now != seen) {
      seen = std::move(now);
      moved = Clock::now();
    } else if (Clock::now() - moved > standstill_max) {
      report_standstill(Clock::now() - moved);
    }
  }
  if (!state_->failure.empty()) throw FatalError(state_->failure);
}

// Requires the lock. The rank that is behind the others is the one they wait for.
void RankThreads::report_standstill(Clock::duration standstill) const {
  const std::vector<std::uint64_t> at = positions();
  const auto least = std::ranges::min_element(at);
  const auto rank = static_cast<std::size_t>(least - at.begin());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(standstill).count();
  const bool alone = std::ranges::count(at, *least) == 1;
  state_->failure =
      (alone ? rank_name(static_cast<int>(rank), at.size(), state_->options.names[rank]) +
                   ": hangs, the others wait for it in a collective operation"
             : "all ranks hang in a collective operation") +
      " since " + std::to_string(seconds) + " s";
  state_->failed = true;
  state_->options.wake();
  state_->changed.notify_all();
  throw FatalError(state_->failure);
}

}  // namespace tessera::worker
