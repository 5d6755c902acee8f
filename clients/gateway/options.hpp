#pragma once

#include <string>
#include <vector>

namespace tessera::gateway {

// Settings of the process, from flags or from a file of `name = value` lines given by --config.
struct Options {
  std::string listen = "127.0.0.1:8080";
  std::string coordinator = "tcp://127.0.0.1:7400";
  std::vector<std::string> models;
  std::string keys;
  bool insecure = false;
  std::string tls_cert;
  std::string tls_key;
  std::vector<std::string> allow_hosts;
  int io_threads = 0;  // 0: two, or one on a machine of one core.
  std::string files;   // Folder of /v1/files; empty: they are not offered.
  int files_gb = 0;    // 0: what the disk has.
  int batch_runners = 2;
  double batch_lease_s = 15;
  bool accept_token_ids = false;
  double request_s = 600;
  int body_mb = 32;
  int held_mb = 1024;
  int head_kb = 32;
  double head_s = 10;
  double body_s = 30;
  double idle_s = 75;
  int connections = 15'000;
  int client_connections = 1'000;
  double drain_s = 20;
  double drain_notice_s = 0;
  std::string port_file;
  std::string log_level = "info";
  bool log_json = false;
  bool list_routes = false;
  std::string new_key;  // Makes a key of this name and ends.
  std::string printed;
};

// False when the user only asked for help. Throws FatalError on a wrong command line.
bool parse_options(int argc, char** argv, Options& options);

}  // namespace tessera::gateway
