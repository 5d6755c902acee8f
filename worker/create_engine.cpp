#include "worker/create_engine.hpp"

#include <utility>

#include "common/log.hpp"
#include "worker/engine/engine_plan.hpp"
#include "worker/engine/module_engine.hpp"
#include "worker/engine/single_engine.hpp"
#include "worker/group/group_engine.hpp"
#include "worker/split/device_choice.hpp"

namespace tessera::worker {
namespace {

std::unique_ptr<kernels::Backend> make_backend(const EngineOptions& options) {
  if (options.device == "cpu") {
    return kernels::make_cpu_backend(
        {.threads = options.threads, .weight_type = options.weight_type});
  }
  return kernels::make_cuda_backend({.device = cuda_index(options.device)});
}

std::unique_ptr<Engine> make_engine_on(const EngineOptions& options) {
  return make_single_engine(options, make_backend(options));
}

std::unique_ptr<Engine> create_encoder(const EngineOptions& options) {
  if (options.device == "cpu" && options.devices.empty()) {
    const int ranks = value_or_fatal(choose_cpu_ranks(options.tp));
    return ranks > 1 ? make_cpu_group_engine(options, ranks) : make_engine_on(options);
  }
  if (options.devices.empty() && options.tp == "auto") {
    return make_engine_on(options);
  }
  const DeviceChoice choice = value_or_fatal(choose_devices(
      options.devices.empty() ? "all" : options.devices, options.tp, kernels::cuda_device_count()));
  if (!choice.reason.empty()) log::info("{}", choice.reason);
  if (choice.devices.size() > 1) return make_cuda_group_engine(options, choice.devices);
  EngineOptions single = options;
  single.device = "cuda:" + std::to_string(choice.devices.front());
  return make_engine_on(single);
}

}  // namespace

std::unique_ptr<Engine> create_engine(const EngineOptions& options) {
  return with_modules(options, create_encoder(options));
}

}  // namespace tessera::worker
