#pragma once

#include <memory>

#include "worker/engine/engine.hpp"

namespace tessera::worker {

// The engine that the options ask for, on one device or a group of them. Takes all device and
// page-locked memory, prints it as a sum, and throws FatalError with that sum when it does not fit,
// and when the folder or the device cannot be used. Owned and called by the thread that calls this.
std::unique_ptr<Engine> create_engine(const EngineOptions& options);

}  // namespace tessera::worker
