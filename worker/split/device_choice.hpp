#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/result.hpp"

namespace tessera::worker {

// Which GPUs a worker's group takes, from its flags.
struct DeviceChoice {
  std::vector<int> devices;
  std::string reason;  // a sentence for the log when the program chose, else empty
};

// `devices`: "all" or a list such as "0,1"; `tp`: "auto" or the group's size. A group has 1, 2, 4
// or 8 GPUs, each of them once. With "auto" it takes as many of the devices as make a group. Pure.
Result<DeviceChoice> choose_devices(std::string_view devices, std::string_view tp, int gpu_count);

// On the CPU: how many teams of threads, 1 for "auto".
Result<int> choose_cpu_ranks(std::string_view tp);

}  // namespace tessera::worker
