#include "coordinator/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string_view>
#include <thread>

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

void add_options(CLI::App& app, Options& o) {
  app.add_option("--listen", o.listen, "Address for clients; port * picks a free one")
      ->capture_default_str();
  app.add_option("--worker-listen", o.worker_listen, "Address for workers")->capture_default_str();
  app.add_option("--model", o.models,
                 "Hugging Face folder of a model that workers serve, with a name: [NAME=]DIR. May "
                 "be given several times")
      ->required();
  app.add_option("--redis", o.redis,
                 "Redis that holds jobs: redis://[:password@]host[:port][/db] or unix:/path. "
                 "Default: a private redis-server in the data folder");
  app.add_option("--redis-cache", o.redis_cache,
                 "Redis that holds cached vectors. Default: the "
                 "one that holds jobs");
  app.add_option("--data-dir", o.data_dir, "Folder of the private redis-server")
      ->capture_default_str();
  app.add_option("--redis-mb", o.redis_mb,
                 "Memory of the private redis-server. A server given with --redis needs a "
                 "third of its maxmemory beyond that")
      ->check(CLI::Range(64, 1 << 22))
      ->capture_default_str();
  app.add_option("--cache-mb", o.cache_mb, "Memory for cached vectors in this process")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--cache-ttl-h", o.cache_ttl_h, "Hours that Redis keeps a cached vector")
      ->check(CLI::Range(1, 24 * 3650))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "Tokenizing threads; 0: a quarter of the cores")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app.add_option("--heartbeat-ms", o.heartbeat_ms, "A worker silent for three of these is dead")
      ->check(CLI::Range(10, 60'000))
      ->capture_default_str();
  app.add_option("--window-chunks", o.window_chunks,
                 "Chunks of a job accepted and not delivered at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--drain-s", o.drain_s, "Seconds to finish what is in flight when stopped")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--port-file", o.port_file, "Writes the bound addresses there, as JSON");
  app.add_option("--log-level", o.log_level, "trace, debug, info, warn, error or off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--log-json", o.log_json, "Logs as JSON, one object a line");
  app.set_config("--config", "", "File with the same options, one `name = value` a line");
  app.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace

std::string hide_passwords(std::string text) {
  for (std::size_t at = text.find("redis://"); at != std::string::npos;
       at = text.find("redis://", at + 1)) {
    const std::size_t start = at + std::string_view("redis://").size();
    const std::size_t end = text.find_first_of("@\n", start);
    if (end != std::string::npos && text[end] == '@') {
      text.replace(start, end - start, "***");
    }
  }
  return text;
}

bool parse_options(int argc, char** argv, Options& options) {
  CLI::App app("Accepts embedding requests and jobs, and shares them among workers.",
               "tessera-coordinator");
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    std::cout << app.help();
    return false;
  } catch (const CLI::Error& error) {
    throw FatalError(error.what());
  }
  if (options.threads == 0) {
    options.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 4, 1, 16);
  }
  if (options.redis_cache.empty()) {
    options.redis_cache = options.redis;
  }
  options.printed = hide_passwords(app.config_to_str(true));
  return true;
}

}  // namespace tessera::coordinator
