#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace tessera::log {

// Sets the one line format of every process: time, level, process name, text; to stderr, so that
// stdout stays for results. `level` is one of trace, debug, info, warn, error, off; throws
// FatalError on another word. Call once from main() before any thread starts.
void init(const std::string& process, const std::string& level);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

}  // namespace tessera::log
