#include "common/log.hpp"

#include <spdlog/details/os.h>
#include <spdlog/fmt/chrono.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>

#include "common/check.hpp"
#include "common/json_text.hpp"

namespace tessera::log {
namespace {

struct Request {
  std::string_view id;
  std::string_view traceparent;
};

// What the line being written on this thread is about. spdlog has no place for it in its messages,
// and formats a message on the thread that logs it.
thread_local const Request* current_request = nullptr;

std::atomic<bool> writes_json = false;

void append_field(spdlog::memory_buf_t& out, std::string_view name, std::string_view value) {
  std::string field = ",\"" + std::string(name) + "\":";
  append_json_string(field, value);
  out.append(field.data(), field.data() + field.size());
}

class JsonFormatter : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string process) : process_(std::move(process)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto since_epoch = message.time.time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_epoch);
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch - seconds);
    fmt::format_to(std::back_inserter(out), "{{\"time\":\"{:%Y-%m-%dT%H:%M:%S}.{:03}Z\",\"pid\":{}",
                   fmt::gmtime(static_cast<std::time_t>(seconds.count())), ms.count(),
                   spdlog::details::os::pid());
    const auto level = spdlog::level::to_string_view(message.level);
    append_field(out, "level", {level.data(), level.size()});
    append_field(out, "process", process_);
    append_field(out, "message", {message.payload.data(), message.payload.size()});
    if (current_request != nullptr && !current_request->id.empty()) {
      append_field(out, "request_id", current_request->id);
    }
    if (current_request != nullptr && !current_request->traceparent.empty()) {
      append_field(out, "traceparent", current_request->traceparent);
    }
    out.push_back('}');
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>(process_);
  }

 private:
  const std::string process_;
};

// A name that came from outside may not begin a line of its own.
std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    c = c < ' ' || c == '\x7f' ? '?' : c;
  }
  return out;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      break;
  }
  return spdlog::level::off;
}

}  // namespace

void set_level(Level level) { spdlog::set_level(to_spdlog(level)); }

bool should_log(Level level) { return spdlog::should_log(to_spdlog(level)); }

void flush() { spdlog::default_logger()->flush(); }

void shutdown() { spdlog::shutdown(); }

void detail::write(Level level, std::string_view id, std::string_view traceparent,
                   fmt::string_view format, fmt::format_args args) {
  std::string text = fmt::vformat(format, args);
  if (!writes_json && !id.empty()) {
    text += " [request " + printable(id) + "]";
  }
  const Request request{id, traceparent};
  current_request = writes_json ? &request : nullptr;
  spdlog::log(to_spdlog(level), spdlog::string_view_t(text.data(), text.size()));
  current_request = nullptr;
}

void init(const std::string& process, const std::string& level, Form form) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw FatalError("log level '" + level + "' is none of trace, debug, info, warn, error, off");
  }
  auto logger = std::make_shared<spdlog::logger>(
      process, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  writes_json = form == Form::kJson;
  if (form == Form::kJson) {
    logger->set_formatter(std::make_unique<JsonFormatter>(process));
  } else {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ " + process + ": %v");
  }
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace tessera::log
