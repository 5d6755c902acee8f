#pragma once

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>
#include <utility>

namespace tessera::log {

enum class Form : std::uint8_t {
  kText,  // time level process: text
  kJson,  // One object a line: time (UTC), level, process, pid, message, and of lines about a
          // request request_id and traceparent.
};

// Sets the one line format of every process; to stderr, so that stdout stays for results. `level`
// is one of trace, debug, info, warn, error, off; throws FatalError on another word. Call once from
// main() before any thread starts.
void init(const std::string& process, const std::string& level, Form form = Form::kText);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;
namespace level = spdlog::level;

namespace detail {
void write(spdlog::level::level_enum level, std::string_view id, std::string_view traceparent,
           const std::string& text);
}

// A line about one request; `trace` has its `id` and `traceparent` (protocol::RequestTrace), which
// are empty where the request has none.
template <typename Trace, typename... Args>
void about(spdlog::level::level_enum level, const Trace& trace, fmt::format_string<Args...> format,
           Args&&... args) {
  if (spdlog::should_log(level)) {
    detail::write(level, trace.id, trace.traceparent,
                  fmt::format(format, std::forward<Args>(args)...));
  }
}

}  // namespace tessera::log
