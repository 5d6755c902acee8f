#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::coordinator {

// What a Redis server says of how it keeps data.
struct RedisServerInfo {
  std::uint64_t maxmemory = 0;  // Bytes; 0: no bound.
  std::string eviction;         // maxmemory_policy
  bool append_only = false;     // What it has answered is in a file.
};

// Reads the answer to INFO; what is missing keeps its default.
RedisServerInfo read_server_info(std::string_view info);

// Why a server must not hold jobs: it would drop accepted work by itself. Empty when it may.
std::string ledger_refusal(const RedisServerInfo& server);
// What an operator should know of a server that may. `with_cache`: it holds cached vectors, too.
std::vector<std::string> ledger_warnings(const RedisServerInfo& server, bool with_cache);

}  // namespace tessera::coordinator
