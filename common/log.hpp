#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

// Lines of a process's log. spdlog writes them; this header does not include it, since nearly every
// file logs something and its templates took longer to compile than most of those files.
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
// Writes what is held back; no line may follow.
void shutdown();
void flush();

enum class Level : std::uint8_t { kDebug, kInfo, kWarn, kError, kOff };
// Lines below `level` are dropped from now on. Any thread.
void set_level(Level level);
bool should_log(Level level);

namespace detail {
struct NoRequest {
  std::string_view id;
  std::string_view traceparent;
};
void write(Level level, std::string_view id, std::string_view traceparent, fmt::string_view format,
           fmt::format_args args);
}  // namespace detail

// A line about one request; `trace` has its `id` and `traceparent` (protocol::RequestTrace), which
// are empty where the request has none.
template <typename Trace, typename... Args>
void about(Level level, const Trace& trace, fmt::format_string<Args...> format, Args&&... args) {
  if (should_log(level)) {
    detail::write(level, trace.id, trace.traceparent, format, fmt::make_format_args(args...));
  }
}

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  about(Level::kDebug, detail::NoRequest{}, format, std::forward<Args>(args)...);
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  about(Level::kInfo, detail::NoRequest{}, format, std::forward<Args>(args)...);
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  about(Level::kWarn, detail::NoRequest{}, format, std::forward<Args>(args)...);
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  about(Level::kError, detail::NoRequest{}, format, std::forward<Args>(args)...);
}

}  // namespace tessera::log
