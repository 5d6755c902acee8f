#pragma once

#include <memory>

#include "worker/engine/engine.hpp"

namespace tessera::worker {

// An engine whose answers go through the modules that its folder has behind the pooling. Without
// Dense modules the engine itself is returned: its vectors are unit vectors already.
std::unique_ptr<Engine> with_modules(const EngineOptions& options, std::unique_ptr<Engine> engine);

}  // namespace tessera::worker
