#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "common/bounded_queue.hpp"
#include "common/net/zmq_socket.hpp"
#include "common/wire/protocol.hpp"
#include "worker/engine/engine.hpp"
#include "worker/link/task_queue.hpp"

namespace tessera::worker {

// Owns the engine and the one thread that calls it. Batches go in from the link's thread, results
// come out to it, in order but for express ones, which overtake the others; `wake_up` is notified
// for each. While one batch computes the next is already enqueued, so the device does not wait for
// the network.
//
// A failure of the engine ends everything: it is thrown from wait_ready or take_result, and no
// result follows it.
class BatchRunner {
 public:
  using EngineFactory = std::function<std::unique_ptr<Engine>()>;

  BatchRunner(EngineFactory factory, const net::WakeUp& wake_up);
  ~BatchRunner();  // Finishes the batches that it holds.

  // Blocks until the engine is loaded or the time is over; then gives nothing. Call until it gives
  // the info, once.
  std::optional<EngineInfo> wait_ready(std::chrono::milliseconds time_max);
  int slots() const { return slots_; }  // After wait_ready.

  // `tag` comes back with the result. False when more batches are held than any coordinator that
  // keeps to `slots` can send.
  bool submit(protocol::Batch batch, std::uint64_t tag);
  // Batches of smaller tags that have not begun are not computed any more; they are answered with
  // kCancelled. Their coordinator has given them to others.
  void drop_before(std::uint64_t tag) { oldest_wanted_ = tag; }

  struct Outcome {
    protocol::BatchResult result;
    std::uint64_t tag = 0;
    std::vector<std::uint32_t> lengths = {};  // Of its sequences; empty: it was not computed.
    std::vector<protocol::RequestTrace> traces = {};
  };
  std::optional<Outcome> take_result();

  // Batches submitted and not yet taken.
  std::size_t held() const { return held_; }
  // How long the oldest enqueued batch has been computing; zero when none is. A device that hangs
  // is seen here, although this process still answers pings.
  std::chrono::steady_clock::duration running_for() const;

 private:
  struct Task {
    protocol::Batch batch;
    std::uint64_t tag = 0;
  };
  struct Running {
    Task task;
    int slot = 0;
    std::chrono::steady_clock::time_point start;
  };
  using Tasks = TaskQueue<Task>;

  void run(const EngineFactory& factory);
  void serve(Engine& engine);
  // Puts a task of the lane into the slot; false where none waits. One that cannot run, or that
  // nobody wants any more, is answered at once.
  bool start_next(Engine& engine, Tasks::Lane lane, int slot, std::deque<Running>& running);
  bool start(Engine& engine, Running& running);
  // Of a batch whose slot is done.
  void finish(Engine& engine, Running running);
  std::chrono::steady_clock::duration computing_time(const Engine& engine, const Running& running);
  static bool take_vector(const Engine& engine, int slot, std::size_t from,
                          protocol::BatchResult& result, std::size_t to);
  static std::vector<std::size_t> take_vectors(const Engine& engine, int slot,
                                               protocol::BatchResult& result);
  static void retry_alone(Engine& engine, const Running& running,
                          const std::vector<std::size_t>& sequences, protocol::BatchResult& result);
  void deliver(Outcome outcome);

  const net::WakeUp& wake_up_;
  Tasks tasks_;
  BoundedQueue<Outcome> outcomes_;
  std::promise<EngineInfo> ready_;
  std::future<EngineInfo> ready_future_ = ready_.get_future();
  int slots_ = 0;
  std::size_t held_ = 0;  // Link's thread only.
  // Engine's thread only: when the last ordinary batch ended, and for how long express ones have
  // computed since.
  std::chrono::steady_clock::time_point last_end_;
  std::chrono::steady_clock::duration overtaken_for_{};
  std::atomic<std::uint64_t> oldest_wanted_{0};
  std::atomic<std::int64_t> running_since_ns_{0};
  std::exception_ptr failure_;  // Written before failed_, read after it.
  std::atomic<bool> failed_{false};
  std::jthread thread_;
};

}  // namespace tessera::worker
