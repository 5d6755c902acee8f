#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <functional>
#include <string>

#include "common/check.hpp"

namespace tessera::test {

// What `action` throws, in a process that is not root's: "" when it does not throw. Root may do
// anything, so what others are refused must be tried as somebody else.
inline std::string error_as_nobody(const std::function<void()>& action) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    std::string message;
    constexpr uid_t kNobody = 65534;
    if (geteuid() == 0 && setuid(kNobody) != 0) {
      message = "setuid failed";
    } else {
      try {
        action();
      } catch (const std::exception& error) {
        message = error.what();
      }
    }
    const ssize_t written = write(ends[1], message.data(), message.size());
    _exit(written == static_cast<ssize_t>(message.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string message;
  char block[4096];
  for (ssize_t got = 0; (got = read(ends[0], block, sizeof(block))) > 0;) {
    message.append(block, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  return message;
}

}  // namespace tessera::test
