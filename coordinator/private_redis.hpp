#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "common/os/lock_file.hpp"
#include "coordinator/redis_url.hpp"

namespace tessera::coordinator {

// A redis-server of our own on a unix socket in a folder. It ends with this object, and with the
// process if that is killed. A lock on the folder keeps two of them apart: another coordinator that
// runs is named at once, the server of a killed one, which holds the lock while it still writes, is
// waited for.
class PrivateRedis {
 public:
  enum class Keeps : std::uint8_t {
    kLedger,  // Append-only file, synced at every write. Keys without a time to live stay.
    // No file while it runs: written at an orderly end and read at the next start. The least
    // frequently used go when it is full.
    kCache,
  };
  // `memory_mb` is the server's maxmemory. Throws FatalError when redis-server is not installed,
  // does not start, or the folder is in use.
  PrivateRedis(const std::filesystem::path& dir, Keeps keeps, int memory_mb);
  ~PrivateRedis();
  PrivateRedis(const PrivateRedis&) = delete;
  PrivateRedis& operator=(const PrivateRedis&) = delete;

  const RedisAddress& address() const { return address_; }
  // Starts it again when it has ended; a ledger's file has all that was answered. One that ends
  // soon after its start (its disk is full, its memory wanted elsewhere) is given a pause. Call
  // often.
  void restart_if_ended();

 private:
  void start();

  const std::filesystem::path dir_;
  const Keeps keeps_;
  const int memory_mb_;
  std::string socket_;
  RedisAddress address_;
  LockFile lock_;  // Inherited by the server.
  pid_t pid_ = -1;
  std::chrono::steady_clock::time_point started_at_;
};

}  // namespace tessera::coordinator
