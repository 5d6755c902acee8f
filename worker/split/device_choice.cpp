#include "worker/split/device_choice.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "worker/split/shard.hpp"

namespace tessera::worker {
namespace {

Error refuse(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

// A whole number from 0 on, or -1.
int parse_index(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 ? value : -1;
}

Result<std::vector<int>> parse_devices(std::string_view text, int gpu_count) {
  std::vector<int> devices;
  if (text == "all") {
    if (gpu_count == 0) return refuse("--devices all: this machine has no usable GPU");
    devices.resize(static_cast<std::size_t>(gpu_count));
    std::iota(devices.begin(), devices.end(), 0);
    return devices;
  }
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const int device = parse_index(text.substr(begin, end - begin));
    if (device < 0) return refuse("--devices takes \"all\" or numbers such as 0,1");
    if (device >= gpu_count) {
      return refuse("--devices: there is no GPU " + std::to_string(device) + "; this machine has " +
                    std::to_string(gpu_count));
    }
    if (std::ranges::count(devices, device) > 0) {
      return refuse("--devices names GPU " + std::to_string(device) + " twice");
    }
    devices.push_back(device);
    begin = end + 1;
  }
  return devices;
}

bool is_group_size(int size) { return size == 1 || size == 2 || size == 4 || size == 8; }

}  // namespace

Result<DeviceChoice> choose_devices(std::string_view devices, std::string_view tp, int gpu_count) {
  Result<std::vector<int>> given = parse_devices(devices, gpu_count);
  if (!given) return given.error();
  DeviceChoice choice{.devices = std::move(given).value()};
  const auto count = static_cast<int>(choice.devices.size());
  if (tp != "auto") {
    const int size = parse_index(tp);
    if (!is_group_size(size)) return refuse("--tp takes \"auto\", 1, 2, 4 or 8");
    if (size != count && devices != "all") {
      return refuse("--tp " + std::to_string(size) + " with " + std::to_string(count) +
                    " devices; name as many");
    }
    if (size > count) {
      return refuse("--tp " + std::to_string(size) + ": this machine has " + std::to_string(count) +
                    " GPUs");
    }
    choice.devices.resize(static_cast<std::size_t>(size));
    return choice;
  }
  int size = kGroupSizeMax;
  while (size > count) size /= 2;
  choice.devices.resize(static_cast<std::size_t>(size));
  if (count == 1) {
    choice.reason = "one GPU, so no group";
    return choice;
  }
  choice.reason = "one group of " + std::to_string(size) + " of " + std::to_string(count) +
                  " GPUs: it takes models and batches that do not fit one of them, long texts come "
                  "back sooner, and short ones at nearly the rate of as many one-GPU workers";
  if (size < count) choice.reason += "; groups have 1, 2, 4 or 8, so start another for the rest";
  return choice;
}

Result<int> choose_cpu_ranks(std::string_view tp) {
  const int ranks = tp == "auto" ? 1 : parse_index(tp);
  if (!is_group_size(ranks)) return refuse("--tp takes \"auto\", 1, 2, 4 or 8");
  return ranks;
}

}  // namespace tessera::worker
