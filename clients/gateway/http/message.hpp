#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::gateway::http {

using Clock = std::chrono::steady_clock;

enum class Method : std::uint8_t { kGet, kHead, kPost, kPut, kPatch, kDelete, kOptions, kOther };
std::string_view to_string(Method method);

// Header fields in the order they came or go. Names are compared without regard to case.
class Headers {
 public:
  void add(std::string_view name, std::string_view value) { all_.emplace_back(name, value); }
  // The first value of the name, empty when there is none.
  std::string_view get(std::string_view name) const;
  bool has(std::string_view name) const;
  std::size_t count(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& all() const { return all_; }

 private:
  std::vector<std::pair<std::string, std::string>> all_;
};

// Who asks, as its API key says. Without keys everybody is the nameless caller.
struct Caller {
  std::string name;
  std::string tenant;
  std::uint64_t tokens_per_minute = 0;  // 0: no quota.
};

// The head of a request, and its body where the route takes it whole.
struct Request {
  Method method = Method::kOther;
  std::string target;  // As sent: "/v1/files?limit=2".
  std::string path;    // Decoded, without the query: "/v1/files".
  std::vector<std::pair<std::string, std::string>> query;        // Decoded.
  std::vector<std::pair<std::string, std::string>> path_values;  // {id} of the route's pattern.
  Headers headers;
  std::string body;
  std::string id;    // In x-request-id: the client's own where it sent a sound one.
  std::string peer;  // Address of the client, without its port.
  Caller caller;
  Clock::time_point arrived;
  bool http_1_0 = false;

  // First value of the query's name; nothing when it is not there.
  std::optional<std::string_view> query_value(std::string_view name) const;
  // Value of {name} in the route's pattern.
  std::string_view path_value(std::string_view name) const;
};

// A body that is made piece by piece, so that no turn of the loop takes long and no large answer
// lies in memory whole. Used by one loop's thread; destroyed when all is written or the client is
// gone.
class BodySource {
 public:
  enum class State : std::uint8_t {
    kMore,  // `slice` holds the next bytes, and there may be more.
    kEnd,   // `slice` holds the last bytes, or none.
    kWait,  // Nothing yet: wake() will be called when there is (server-sent events).
    kFail,  // What was promised cannot be made: the connection is cut so that the client sees it.
  };
  virtual ~BodySource() = default;
  // Puts the next bytes into `slice`, which is empty: about 64 KiB, and at most a millisecond's
  // work.
  virtual State next(std::string& slice) = 0;
  // Bytes in all, where known before; else the body is sent in chunks.
  virtual std::optional<std::uint64_t> size() const { return std::nullopt; }
  // Memory that it keeps until it is destroyed.
  virtual std::size_t held() const { return 0; }
  // The connection's function to call, on the loop's thread, after kWait.
  virtual void on_wake(std::function<void()> /*wake*/) {}
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  Headers headers;  // Beside content-type, content-length, date, server and x-request-id.
  std::string body;
  std::unique_ptr<BodySource> source;  // Instead of `body`.
};

// Why a request is not served; each family of routes has its own form for it.
struct Problem {
  int status = 500;
  std::string code;                          // "invalid_api_key"
  std::string message;                       // One sentence.
  std::string param;                         // The field of the body that is wrong; may be empty.
  std::chrono::milliseconds retry_after{0};  // 0: the client is not told to come again.
  // Whether trying the same again can help; nothing: the status says it.
  std::optional<bool> should_retry;
};

std::string_view reason_of(int status);

// %XX and, where `plus_is_space`, +; nothing for a broken escape.
std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_space);
// Fills path and query from target; false for a target that is no absolute path, or is broken.
bool parse_target(Request& request);

}  // namespace tessera::gateway::http
