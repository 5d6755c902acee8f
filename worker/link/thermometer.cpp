#include "worker/link/thermometer.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <fstream>

namespace tessera::worker {
namespace {

// Kernel drivers of processors' own sensors.
bool is_cpu_sensor(const std::string& driver) {
  return driver == "coretemp" || driver == "k10temp" || driver == "zenpower" ||
         driver == "cpu_thermal";
}

std::vector<std::filesystem::path> cpu_inputs(const std::filesystem::path& sensors) {
  std::vector<std::filesystem::path> inputs;
  std::error_code error;
  for (const auto& chip : std::filesystem::directory_iterator(sensors, error)) {
    std::string driver;
    std::ifstream(chip.path() / "name") >> driver;
    if (!is_cpu_sensor(driver)) {
      continue;
    }
    for (const auto& file : std::filesystem::directory_iterator(chip.path(), error)) {
      const std::string name = file.path().filename();
      if (name.starts_with("temp") && name.ends_with("_input")) {
        inputs.push_back(file.path());
      }
    }
  }
  return inputs;
}

}  // namespace

// NVML, of which four functions are needed; so it is looked for when the worker runs, and neither
// its headers when this is built nor the library where there is no GPU.
struct Thermometer::Driver {
  using Device = void*;
  static constexpr int kSuccess = 0;
  static constexpr int kGpuSensor = 0;

  void* library = nullptr;
  int (*shutdown)() = nullptr;
  int (*temperature)(Device, int, unsigned*) = nullptr;
  std::vector<Device> devices;

  explicit Driver(const std::vector<std::string>& pci_bus_ids)
      : library(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    int (*init)() = nullptr;
    int (*by_bus_id)(const char*, Device*) = nullptr;
    if (library == nullptr || !find("nvmlInit_v2", init) || !find("nvmlShutdown", shutdown) ||
        !find("nvmlDeviceGetHandleByPciBusId_v2", by_bus_id) ||
        !find("nvmlDeviceGetTemperature", temperature) || init() != kSuccess) {
      shutdown = nullptr;
      return;
    }
    for (const std::string& id : pci_bus_ids) {
      Device device = nullptr;
      if (by_bus_id(id.c_str(), &device) == kSuccess) {
        devices.push_back(device);
      }
    }
  }
  ~Driver() {
    if (shutdown != nullptr) {
      shutdown();
    }
    if (library != nullptr) {
      dlclose(library);
    }
  }
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  template <typename F>
  bool find(const char* name, F& function) const {
    function = reinterpret_cast<F>(dlsym(library, name));
    return function != nullptr;
  }
  double celsius() const {
    double hottest = 0;
    for (Device device : devices) {
      unsigned degrees = 0;
      if (temperature(device, kGpuSensor, &degrees) == kSuccess) {
        hottest = std::max(hottest, static_cast<double>(degrees));
      }
    }
    return hottest;
  }
};

Thermometer::Thermometer(const std::vector<std::string>& pci_bus_ids,
                         const std::filesystem::path& sensors) {
  if (pci_bus_ids.empty()) {
    inputs_ = cpu_inputs(sensors);
  } else {
    driver_ = std::make_unique<Driver>(pci_bus_ids);
  }
}

Thermometer::~Thermometer() = default;

double Thermometer::celsius() const {
  double hottest = driver_ == nullptr ? 0 : driver_->celsius();
  for (const std::filesystem::path& input : inputs_) {
    double thousandths = 0;
    if (std::ifstream(input) >> thousandths) {
      hottest = std::max(hottest, thousandths / 1000);
    }
  }
  return hottest;
}

}  // namespace tessera::worker
