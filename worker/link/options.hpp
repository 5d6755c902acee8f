#pragma once

#include <string>

#include "worker/engine/engine.hpp"

namespace tessera::worker {

struct WorkerOptions {
  std::string coordinator = "tcp://127.0.0.1:7401";
  EngineOptions engine;
  std::string name;        // Empty: host name and device.
  std::string model_name;  // Empty: the folder's name.
  std::uint32_t preferred_seqlen_min = 0;
  std::uint32_t preferred_seqlen_max = 0;
  double drain_s = 30;
  double batch_timeout_s = 120;
  std::string log_level = "info";
  bool log_json = false;
  bool verify = false;  // Load, run the self-tests, print them and end.
};

// Reads flags and the file of --config; prints help or an error and exits where that is asked for
// or needed.
WorkerOptions parse_worker_options(int argc, char** argv);

}  // namespace tessera::worker
