#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "common/lock_file.hpp"
#include "coordinator/redis_url.hpp"

namespace tessera::coordinator {

// A redis-server of our own on a unix socket below the data folder, append-only file on and synced
// at every write. It ends with this object, and with the process if that is killed. A lock on the
// data folder keeps two of them apart: another coordinator that runs is named at once, the server
// of a killed one, which holds the lock while it still writes, is waited for.
class PrivateRedis {
 public:
  // `memory_mb` is the server's maxmemory. Throws FatalError when redis-server is not installed,
  // does not start, or the folder is in use.
  PrivateRedis(const std::filesystem::path& data_dir, int memory_mb);
  ~PrivateRedis();
  PrivateRedis(const PrivateRedis&) = delete;
  PrivateRedis& operator=(const PrivateRedis&) = delete;

  const RedisAddress& address() const { return address_; }
  // Starts it again when it has ended; its file has all that was answered. One that ends soon after
  // its start (its disk is full, its memory wanted elsewhere) is given a pause. Call often.
  void restart_if_ended();

 private:
  void start();

  const std::filesystem::path dir_;
  const int memory_mb_;
  std::string socket_;
  RedisAddress address_;
  LockFile lock_;  // Inherited by the server.
  pid_t pid_ = -1;
  std::chrono::steady_clock::time_point started_at_;
};

}  // namespace tessera::coordinator
