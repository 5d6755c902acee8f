#include "coordinator/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <span>
#include <sstream>
#include <string_view>
#include <thread>

#include "common/check.hpp"
#include "coordinator/redis_login.hpp"

namespace tessera::coordinator {
namespace {

// The servers as they are given, before secrets are looked up.
struct RedisWords {
  std::string url;
  std::string password_file;
  std::string cache_url;
  std::string cache_password_file;
};

void add_redis_options(CLI::App& app, RedisWords& redis) {
  app.add_option("--redis", redis.url,
                 "Redis that holds jobs: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or "
                 "unix:/PATH[?db=DB], %XX for special characters. Default: a private redis-server "
                 "in the data folder");
  app.add_option("--redis-password-file", redis.password_file,
                 "File with the password of --redis, which `ps` then does not show; or set the "
                 "variable TESSERA_REDIS_PASSWORD");
  app.add_option(
      "--redis-cache", redis.cache_url,
      "Redis that holds cached vectors. Default: a private redis-server, or the one that "
      "--redis names");
  app.add_option("--redis-cache-password-file", redis.cache_password_file,
                 "File with the password of --redis-cache; or TESSERA_REDIS_CACHE_PASSWORD");
}

void add_options(CLI::App& app, Options& o) {
  app.add_option("--listen", o.listen, "Address for clients; port * picks a free one")
      ->capture_default_str();
  app.add_option("--worker-listen", o.worker_listen, "Address for workers")->capture_default_str();
  app.add_option("--model", o.models,
                 "Hugging Face folder of a model that workers serve, with a name: [NAME=]DIR. May "
                 "be given several times")
      ->required();
  app.add_option("--data-dir", o.data_dir, "Folder of the private redis-servers")
      ->capture_default_str();
  app.add_option("--redis-mb", o.redis_mb,
                 "Memory of the private redis-server for jobs. A server given with --redis needs a "
                 "third of its maxmemory beyond that")
      ->check(CLI::Range(64, 1 << 22))
      ->capture_default_str();
  app.add_option("--redis-cache-mb", o.redis_cache_mb,
                 "Memory of the private redis-server for cached vectors")
      ->check(CLI::Range(16, 1 << 22))
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

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::optional<std::string>(value) : std::nullopt;
}

RedisAddress address_of(const RedisLogin& login) {
  auto address = resolve_login(login);
  if (!address) {
    throw FatalError(address.error().message);
  }
  return std::move(*address);
}

void read_redis_words(const RedisWords& words, Options& options) {
  if (!words.url.empty()) {
    options.redis = address_of({.url = words.url,
                                .password_file = words.password_file,
                                .environment = variable("TESSERA_REDIS_PASSWORD"),
                                .option = "--redis"});
  } else if (!words.password_file.empty()) {
    throw FatalError("--redis-password-file is for the server that --redis names, and none is");
  }
  if (!words.cache_url.empty()) {
    options.redis_cache = address_of({.url = words.cache_url,
                                      .password_file = words.cache_password_file,
                                      .environment = variable("TESSERA_REDIS_CACHE_PASSWORD"),
                                      .option = "--redis-cache"});
  } else if (!words.cache_password_file.empty()) {
    throw FatalError(
        "--redis-cache-password-file is for the server that --redis-cache names, and none is");
  }
}

// The settings as CLI11 writes them, with the servers' own printed forms for what was given.
std::string printed_settings(const CLI::App& app, const Options& options) {
  std::istringstream lines(app.config_to_str(true));
  std::string printed;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("redis=") && options.redis) {
      printed += "redis=\"" + options.redis->printable() + "\"\n";
    } else if (line.starts_with("redis-cache=") && options.redis_cache) {
      printed += "redis-cache=\"" + options.redis_cache->printable() + "\"\n";
    } else {
      printed += hide_secrets(line) + "\n";
    }
  }
  return printed;
}

// Whether the password of a URL stands among the arguments, where every user of the machine sees
// it.
bool is_on_command_line(std::span<char*> arguments, const std::string& url) {
  return !url.empty() && std::ranges::any_of(arguments, [&](const char* argument) {
    return std::string_view(argument).find(url) != std::string_view::npos;
  });
}

void warn_of_secrets(std::span<char*> arguments, const RedisWords& words, Options& options) {
  const auto warn = [&](const std::string& url, const std::string& option,
                        const std::string& environment) {
    if (is_on_command_line(arguments, url) && !parse_redis_url(url)->password.empty()) {
      options.warnings.push_back("the password in " + option +
                                 " is on the command line, where ps shows it: " + option +
                                 "-password-file or the variable " + environment + " hides it");
    }
  };
  warn(words.url, "--redis", "TESSERA_REDIS_PASSWORD");
  warn(words.cache_url, "--redis-cache", "TESSERA_REDIS_CACHE_PASSWORD");
  for (const std::string& path : {words.password_file, words.cache_password_file}) {
    std::error_code unknown;
    const auto permissions = std::filesystem::status(path, unknown).permissions();
    if (!path.empty() && !unknown &&
        (permissions & std::filesystem::perms::others_read) != std::filesystem::perms::none) {
      options.warnings.push_back("every user of this machine can read the password file " + path +
                                 ": chmod 600 it");
    }
  }
}

}  // namespace

bool parse_options(int argc, char** argv, Options& options) {
  CLI::App app("Accepts embedding requests and jobs, and shares them among workers.",
               "tessera-coordinator");
  RedisWords redis;
  add_redis_options(app, redis);
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    std::cout << app.help();
    return false;
  } catch (const CLI::Error& error) {
    throw FatalError(hide_secrets(error.what()));
  }
  if (options.threads == 0) {
    options.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 4, 1, 16);
  }
  read_redis_words(redis, options);
  warn_of_secrets({argv, static_cast<std::size_t>(argc)}, redis, options);
  options.printed = printed_settings(app, options);
  return true;
}

}  // namespace tessera::coordinator
