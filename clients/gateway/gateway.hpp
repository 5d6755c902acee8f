#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "clients/gateway/api/token_list.hpp"
#include "clients/gateway/auth/access.hpp"
#include "clients/gateway/batches/batch_runner.hpp"
#include "clients/gateway/files/file_store.hpp"
#include "clients/gateway/http/listener.hpp"
#include "clients/gateway/http/server.hpp"
#include "clients/gateway/link/link.hpp"
#include "clients/gateway/metrics/gateway_metrics.hpp"
#include "clients/gateway/options.hpp"

namespace tessera {
class StopSignal;
}

namespace tessera::gateway {

// The process: I/O threads, each with its connections, its link to the coordinator and its
// handlers; the main thread runs the first of them, which also listens and takes signals.
class Gateway {
 public:
  explicit Gateway(const Options& options);  // Throws FatalError. Listens when it returns.
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  // Serves until a stop signal, then finishes what is open. False when it was not all finished.
  bool run(const StopSignal& stop);

  // "POST /v1/embeddings", sorted.
  static std::vector<std::string> routes();

 private:
  struct Worker;  // One I/O thread.

  void open_files();
  void sweep_files();
  void run_batches();
  void listen();
  void accepted(int fd, std::string peer);
  void reload_keys();
  void on_stop_signal();
  void begin_drain();
  void check_drained();
  void end();
  void write_port_file() const;
  std::string url() const;

  const Options options_;
  http::ListenAddress address_;
  net::Context context_;
  std::unique_ptr<http::TlsContext> tls_;
  GatewayMetrics metrics_;
  std::unique_ptr<const Tokenizers> tokenizers_;
  http::HeldBytes held_;
  std::unique_ptr<FileStore> files_;               // None without --files.
  std::unique_ptr<http::SideThread> file_thread_;  // With files_; ends before the workers.
  std::unique_ptr<BatchRunner> batch_runner_;      // With files_, unless it runs none.
  std::vector<std::unique_ptr<Worker>> workers_;
  http::SideThread side_;  // Ends before the loops that its tasks post to.
  std::unique_ptr<http::Listener> listener_;
  std::size_t next_worker_ = 0;
  std::atomic<bool> draining_ = false;
  bool listening_ended_ = false;
  http::Clock::time_point drain_began_;
  bool finished_all_ = true;
  std::vector<std::jthread> threads_;
};

}  // namespace tessera::gateway
