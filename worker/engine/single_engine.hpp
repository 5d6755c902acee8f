#pragma once

#include <memory>

#include "kernels/backend.hpp"
#include "worker/engine/engine.hpp"

namespace tessera::worker {

// A copy of the model on one device, as Engine describes it.
std::unique_ptr<Engine> make_single_engine(const EngineOptions& options,
                                           std::unique_ptr<kernels::Backend> backend);

}  // namespace tessera::worker
