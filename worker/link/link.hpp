#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/net/zmq_socket.hpp"
#include "common/os/stop_signal.hpp"
#include "common/wire/protocol.hpp"
#include "worker/link/batch_runner.hpp"
#include "worker/link/options.hpp"
#include "worker/link/run_metrics.hpp"
#include "worker/link/thermometer.hpp"

namespace tessera::worker {

// The worker's connection: registers, takes batches, sends results, answers and sends pings. Lives
// on one thread, which is the only one to touch the socket. When its connection breaks, or the
// coordinator is silent for three heartbeats, it opens a fresh one, with a new routing id, and
// registers again; results of batches from an earlier connection are dropped, since the coordinator
// gives those to others.
class Link {
 public:
  Link(const WorkerOptions& options, const EngineInfo& info, BatchRunner& runner,
       const net::WakeUp& results_ready);

  // Serves until the signal, then finishes the batches it holds; false when that took longer than
  // options.drain_s or a second signal came. Throws FatalError when the engine failed or hangs, or
  // the coordinator refused this worker for good.
  bool run(const StopSignal& stop);

 private:
  using Clock = std::chrono::steady_clock;

  void connect();
  void send(protocol::Message message);
  void receive_all();
  void handle(protocol::Message message);
  void on_welcome(const protocol::WorkerWelcome& welcome);
  void on_stale_welcome(std::uint64_t epoch);
  void on_batch(protocol::Batch batch);
  void on_error(const protocol::ErrorReply& error);
  void begin_anew_if_lost();
  void send_results();
  void send_metrics();
  void keep_alive();
  void check_engine() const;
  bool drain(net::PollSet& poll, const StopSignal& stop);

  const WorkerOptions& options_;
  protocol::WorkerHello hello_;
  BatchRunner& runner_;
  const net::WakeUp& results_ready_;
  const double hang_after_s_;  // of computing on one batch
  RunMetrics metrics_;
  const Thermometer thermometer_;
  net::Context context_;
  std::unique_ptr<net::DealerSocket> socket_;
  std::uint64_t connection_ = 0;  // Counts up; the tag of batches.
  std::string ledger_id_;         // Of the coordinator that is followed.
  std::uint64_t epoch_ = 0;       // The highest leader term seen there.
  int stale_welcomes_ = 0;        // In a row.
  bool welcomed_ = false;
  std::chrono::milliseconds heartbeat_{1000};
  std::chrono::milliseconds patience_{3000};    // Doubles while nobody answers.
  std::chrono::milliseconds metrics_every_{0};  // 0: the coordinator wants none.
  Clock::time_point metrics_sent_;
  Clock::time_point last_received_;
  Clock::time_point last_sent_;
};

}  // namespace tessera::worker
