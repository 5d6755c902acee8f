#include "coordinator/redis_server_info.hpp"

#include <algorithm>
#include <charconv>

namespace tessera::coordinator {

RedisServerInfo read_server_info(std::string_view info) {
  RedisServerInfo server;
  while (!info.empty()) {
    const std::string_view line = info.substr(0, info.find('\n'));
    info.remove_prefix(std::min(info.size(), line.size() + 1));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) {
      continue;
    }
    const std::string_view name = line.substr(0, colon);
    std::string_view value = line.substr(colon + 1);
    if (value.ends_with('\r')) {
      value.remove_suffix(1);
    }
    if (name == "maxmemory") {
      std::from_chars(value.data(), value.data() + value.size(), server.maxmemory);
    } else if (name == "maxmemory_policy") {
      server.eviction = value;
    } else if (name == "aof_enabled") {
      server.append_only = value == "1";
    }
  }
  return server;
}

std::string ledger_refusal(const RedisServerInfo& server) {
  if (server.maxmemory == 0 || !server.eviction.starts_with("allkeys-")) {
    return "";
  }
  return "its maxmemory-policy is " + server.eviction +
         ", so it would drop accepted work when it is full; volatile-lru drops cached vectors only";
}

std::vector<std::string> ledger_warnings(const RedisServerInfo& server, bool with_cache) {
  std::vector<std::string> warnings;
  if (!server.append_only) {
    warnings.emplace_back(
        "Redis keeps no append-only file: accepted work is lost when it ends; "
        "set appendonly yes");
  }
  if (with_cache && server.maxmemory > 0 && server.eviction == "noeviction") {
    warnings.emplace_back(
        "Redis evicts nothing: when cached vectors have filled it, jobs find no room; set "
        "maxmemory-policy volatile-lru, or give the cache a server of its own (--redis-cache)");
  }
  return warnings;
}

}  // namespace tessera::coordinator
