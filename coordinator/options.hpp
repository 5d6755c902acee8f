#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coordinator/redis_url.hpp"

namespace tessera::coordinator {

struct Options {
  std::string listen = "tcp://127.0.0.1:7400";
  std::string worker_listen = "tcp://127.0.0.1:7401";
  std::vector<std::string> models;    // [NAME=]DIR
  std::optional<RedisAddress> redis;  // Nothing: a private server.
  // Nothing: a private server beside a private `redis`, otherwise the one that holds jobs.
  std::optional<RedisAddress> redis_cache;
  std::string data_dir = "tessera-data";
  std::string port_file;
  std::string log_level = "info";
  bool log_json = false;
  int redis_mb = 4096;        // Of the private server for jobs.
  int redis_cache_mb = 3072;  // Of the private server for cached vectors.
  int cache_mb = 256;
  int cache_ttl_h = 24 * 7;
  int threads = 0;  // 0: a quarter of the cores, 1 to 16.
  int heartbeat_ms = 1000;
  int window_chunks = 64;
  double drain_s = 20;
  std::string printed;  // All of the above as a --config file would have it, without secrets.
  std::vector<std::string> warnings;  // For the log, once there is one.
};

// Reads flags, the --config file (the flags' names, as `name = value` lines) and passwords from
// where they are kept. Returns false when only help was asked for; throws FatalError with one line,
// without secrets, on anything wrong.
bool parse_options(int argc, char** argv, Options& options);

}  // namespace tessera::coordinator
