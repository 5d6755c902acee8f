#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "clients/cli/up/child_process.hpp"
#include "common/os/lock_file.hpp"

namespace tessera {
class StopSignal;
}

namespace tessera::cli {

struct LocalClusterOptions {
  std::string model;  // [NAME=]DIR
  std::string listen = "tcp://127.0.0.1:7400";
  std::string worker_listen = "tcp://127.0.0.1:7401";
  std::string data_dir = "tessera-data";
  std::string redis;                 // Empty: the coordinator starts its own.
  std::vector<std::string> devices;  // One for each worker.
  int threads = 0;                   // Per worker; 0: the cores, divided.
  std::vector<std::string> coordinator_args;
  std::vector<std::string> worker_args;
  std::string http = "127.0.0.1:8080";  // Where the gateway listens; empty: there is none.
  std::vector<std::string> gateway_args;
  bool rehash = false;   // Passed to each worker.
  double ready_s = 300;  // Longest wait for the first worker.
};

// A coordinator, its workers and a gateway as children of this process, on one machine. What ends
// is started again, at first after a second, then later each time, up to half
// a minute. One thread.
class LocalCluster {
 public:
  LocalCluster(LocalClusterOptions options, const StopSignal& stop);

  // Returns when a worker serves the model; false on a stop signal. Throws FatalError, with the end
  // of the log, when a process would not start, and at once when the data folder is in use.
  bool start();
  // Keeps everything running until a stop signal.
  void supervise();
  // The gateway first, then workers, then the coordinator: SIGTERM, and SIGKILL for what is left
  // after a while.
  void stop();

  const std::string& client_address() const { return client_address_; }
  const std::string& worker_address() const { return worker_address_; }
  const std::string& model_name() const { return model_name_; }  // As clients name it.
  const std::string& http_url() const { return http_url_; }      // Empty without a gateway.
  std::vector<const ChildProcess*> processes() const;

 private:
  struct Supervised {
    std::unique_ptr<ChildProcess> process;
    std::uint32_t restarts = 0;
    std::chrono::steady_clock::time_point started_at;
    std::chrono::steady_clock::time_point restart_at;
  };
  void claim_data_dir();
  bool wait_for_addresses(const std::string& old_ports);
  bool wait_for_worker();
  bool start_gateway();
  bool sleep_or_stop(int ms) const;
  void refuse_if_ended(Supervised& child);
  void look_after(Supervised& child);
  std::vector<std::string> coordinator_command() const;
  std::vector<std::string> gateway_command(const std::string& listen) const;
  std::vector<std::string> worker_command(std::size_t number) const;
  std::string ports_path() const;
  std::string log_path(const std::string& name) const;
  static void end(std::vector<Supervised*> children, std::chrono::seconds patience);

  LocalClusterOptions options_;
  const StopSignal& stop_;
  LockFile lock_;  // Of the data folder.
  std::string client_address_;
  std::string worker_address_;
  std::string model_name_;
  std::string http_url_;
  Supervised coordinator_;
  Supervised gateway_;
  std::vector<Supervised> workers_;
};

}  // namespace tessera::cli
