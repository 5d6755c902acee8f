#include "clients/gateway/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <thread>

#include "common/check.hpp"

namespace tessera::gateway {
namespace {

void add_access_options(CLI::App& app, Options& o) {
  app.add_option("--keys", o.keys,
                 "File of API keys; SIGHUP reads it again. Without it everybody may, so the server "
                 "listens on the loopback interface only");
  app.add_flag("--insecure", o.insecure, "Without keys, listen on other interfaces, too");
  app.add_option("--new-key", o.new_key,
                 "Print a new key of this name and its line for the keys' file, and end");
  app.add_option("--tls-cert", o.tls_cert, "Certificate chain, PEM: serve HTTPS");
  app.add_option("--tls-key", o.tls_key, "Its private key, PEM");
  app.add_option("--allow-host", o.allow_hosts,
                 "Further host name under which a server without keys on the loopback interface "
                 "may be called; may be repeated");
  app.add_flag("--accept-token-ids", o.accept_token_ids,
               "Take token ids from requests that do not say of which vocabulary they are");
}

void add_limit_options(CLI::App& app, Options& o) {
  app.add_option("--request-s", o.request_s, "Longest wait for the coordinator's answer")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--body-mb", o.body_mb, "Largest body of a request, uploads excepted")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  app.add_option("--held-mb", o.held_mb, "Memory for all bodies and answers under way")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  app.add_option("--head-kb", o.head_kb, "Largest head of a request")
      ->check(CLI::Range(1, 60))
      ->capture_default_str();
  app.add_option("--head-s", o.head_s, "Time for a request's head")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--body-s", o.body_s, "Time for a request's body, beside a second for each 16 KiB")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--idle-s", o.idle_s, "Time between two requests of a connection")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app.add_option("--max-connections", o.connections, "Connections in all")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--client-connections", o.client_connections, "Connections from one address")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
}

void add_options(CLI::App& app, Options& o) {
  app.add_option("--listen", o.listen, "HOST:PORT to listen on; port * or 0 takes a free one")
      ->capture_default_str();
  app.add_option("--coordinator", o.coordinator, "The coordinator's address for clients")
      ->capture_default_str();
  app.add_option("--model", o.models,
                 "Folder of a model that the coordinator serves, [NAME=]DIR, for /tokenize; may be "
                 "repeated");
  app.add_option("--io-threads", o.io_threads, "Threads for connections; 0: two, as cores allow")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  app.add_option("--files", o.files,
                 "Folder for uploaded files, which /v1/files needs; gateways of one coordinator "
                 "may share it");
  app.add_option("--files-gb", o.files_gb, "Most that all files may have; 0: what the disk has")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--batch-runners", o.batch_runners,
                 "With --files: batches that are run at a time; 0: other gateways run them")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  app.add_option("--batch-lease-s", o.batch_lease_s,
                 "Time after which another gateway goes on with a batch whose own one is gone")
      ->check(CLI::Range(1.0, 600.0))
      ->capture_default_str();
  add_access_options(app, o);
  add_limit_options(app, o);
  app.add_option("--drain-s", o.drain_s, "Seconds to finish open requests when stopped")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--drain-notice-s", o.drain_notice_s,
                 "Of these, seconds in which new connections are still taken while /health/ready "
                 "says no, so that a balancer can learn of it")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_flag("--list-routes", o.list_routes, "Print all routes, a line each, and end");
  app.add_option("--port-file", o.port_file, "Writes the bound address there, as JSON");
  app.add_option("--log-level", o.log_level, "trace, debug, info, warn, error or off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--log-json", o.log_json, "Logs as JSON, one object a line");
  app.set_config("--config", "", "File with the same options, one `name = value` a line");
  app.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace

bool parse_options(int argc, char** argv, Options& options) {
  CLI::App app("Serves embeddings over HTTP: OpenAI's routes, and those of TEI, Cohere and Ollama.",
               "tessera-gateway");
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    std::cout << app.help();
    return false;
  } catch (const CLI::Error& error) {
    throw FatalError(error.what());
  }
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    throw FatalError("--tls-cert and --tls-key go together");
  }
  if (options.io_threads == 0) {
    options.io_threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 2);
  }
  options.printed = app.config_to_str(true);
  return true;
}

}  // namespace tessera::gateway
