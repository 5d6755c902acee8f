#pragma once

#include <cstdint>
#include <string>

namespace tessera::coordinator {

using Micros = std::int64_t;  // A moment or a span of a clock that never goes back.

using ModelId = std::uint32_t;  // Index of a served model.
using UnitId = std::uint64_t;   // One embed request or one chunk of a job while it is worked on.
using JobId = std::string;

}  // namespace tessera::coordinator
