#include "common/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "common/check.hpp"

namespace tessera::log {

void init(const std::string& process, const std::string& level) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw FatalError("log level '" + level + "' is none of trace, debug, info, warn, error, off");
  }
  auto logger = std::make_shared<spdlog::logger>(
      process, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ " + process + ": %v");
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace tessera::log
