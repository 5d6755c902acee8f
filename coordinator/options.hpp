#pragma once

#include <string>
#include <vector>

namespace tessera::coordinator {

struct Options {
  std::string listen = "tcp://127.0.0.1:7400";
  std::string worker_listen = "tcp://127.0.0.1:7401";
  std::vector<std::string> models;  // [NAME=]DIR
  std::string redis;                // Empty: a private server.
  std::string redis_cache;          // Empty: as `redis`.
  std::string data_dir = "tessera-data";
  std::string port_file;
  std::string log_level = "info";
  bool log_json = false;
  int redis_mb = 4096;  // Of the private server.
  int cache_mb = 256;
  int cache_ttl_h = 24 * 7;
  int threads = 0;  // 0: a quarter of the cores, 1 to 16.
  int heartbeat_ms = 1000;
  int window_chunks = 64;
  double drain_s = 20;
  std::string printed;  // All of the above as a --config file would have it, passwords hidden.
};

// "redis://:secret@host" becomes "redis://***@host", wherever it is in the text.
std::string hide_passwords(std::string text);

// Reads flags and the --config file (the flags' names, as `name = value` lines). Returns false when
// only help was asked for; throws FatalError with one line on anything wrong.
bool parse_options(int argc, char** argv, Options& options);

}  // namespace tessera::coordinator
