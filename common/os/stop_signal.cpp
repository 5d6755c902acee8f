#include "common/os/stop_signal.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

#include "common/check.hpp"

namespace tessera {

StopSignal::StopSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  CHECK(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  fd_ = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd_ < 0) {
    throw FatalError("cannot make a signalfd: too many open files?");
  }
}

StopSignal::~StopSignal() { close(fd_); }

bool StopSignal::take() const {
  signalfd_siginfo info;
  return read(fd_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info));
}

}  // namespace tessera
