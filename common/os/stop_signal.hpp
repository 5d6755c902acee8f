#pragma once

namespace tessera {

// SIGTERM and SIGINT as a readable file descriptor, for poll loops. Make it in main() before any
// thread starts, so that every thread has the signals blocked; one per process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  int fd() const { return fd_; }
  // Whether a signal has come since the last call. A second one means that the user is impatient.
  bool take() const;

 private:
  int fd_;
};

}  // namespace tessera
