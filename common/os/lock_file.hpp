#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace tessera {

// Who holds a lock file, as far as its text tells.
struct LockHolder {
  pid_t pid = 0;  // 0: not told (an older version, or a holder that has not written it yet).
  std::string host;
  std::string program;
  std::string since;  // UTC: "2026-11-30T04:59:07Z"
  // Its process is seen to run on this host. False: that cannot be seen from here, or the lock has
  // outlived its process in a child that is ending.
  bool running = false;
};

// For people: "in use by process 1234 (tessera submit) since 2026-11-30T04:59:07Z".
std::string to_string(const LockHolder& holder);

// The right to a folder, held by locking a file in it; the file's text says who. The kernel gives
// the lock back when the last process that has it open ends, so no lock outlives a crash. One
// thread.
class LockFile {
 public:
  enum class Inherit : bool { kNo, kByChildren };

  LockFile() = default;
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  // Takes the lock without waiting: nothing when it is ours now, else its holder. `program` is
  // written for others to read. Throws FatalError with the system's reason when the file cannot be
  // made or written.
  std::optional<LockHolder> take(const std::string& path, const std::string& program,
                                 Inherit inherit = Inherit::kNo);

 private:
  int fd_ = -1;
};

}  // namespace tessera
