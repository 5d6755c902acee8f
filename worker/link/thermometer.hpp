#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace tessera::worker {

// Reads how hot the worker's devices are: NVIDIA GPUs, by their PCI bus ids, through the driver's
// own library, where that is installed; without ids the CPU, from the kernel's sensors. Reading
// takes some microseconds. Used by one thread.
class Thermometer {
 public:
  explicit Thermometer(const std::vector<std::string>& pci_bus_ids,
                       const std::filesystem::path& sensors = "/sys/class/hwmon");
  ~Thermometer();

  // Of the hottest; 0 where none is known.
  double celsius() const;

 private:
  struct Driver;  // Of the GPUs.
  std::unique_ptr<Driver> driver_;
  std::vector<std::filesystem::path> inputs_;  // Files with thousandths of a degree.
};

}  // namespace tessera::worker
