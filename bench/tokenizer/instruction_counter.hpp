#pragma once

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace tessera {

// Counts this thread's instructions in user mode, where the machine has a counter and lets us at
// it; many virtual machines have none, see instructions.py.
class InstructionCounter {
 public:
  InstructionCounter() {
    perf_event_attr attributes{};
    attributes.type = PERF_TYPE_HARDWARE;
    attributes.size = sizeof attributes;
    attributes.config = PERF_COUNT_HW_INSTRUCTIONS;
    attributes.disabled = 1;
    attributes.exclude_kernel = 1;
    attributes.exclude_hv = 1;
    file_ = static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
  }
  InstructionCounter(const InstructionCounter&) = delete;
  InstructionCounter& operator=(const InstructionCounter&) = delete;
  ~InstructionCounter() {
    if (file_ >= 0) {
      close(file_);
    }
  }

  // Nothing where they cannot be counted; the work is done all the same.
  std::optional<double> count(const std::function<void()>& work) {
    const bool counts = file_ >= 0 && ioctl(file_, PERF_EVENT_IOC_RESET, 0) == 0 &&
                        ioctl(file_, PERF_EVENT_IOC_ENABLE, 0) == 0;
    work();
    std::uint64_t instructions = 0;
    if (!counts || ioctl(file_, PERF_EVENT_IOC_DISABLE, 0) != 0 ||
        read(file_, &instructions, sizeof instructions) != sizeof instructions) {
      return std::nullopt;
    }
    return static_cast<double>(instructions);
  }

 private:
  int file_;
};

}  // namespace tessera
