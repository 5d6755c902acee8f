#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "clients/gateway/http/message.hpp"

namespace tessera::gateway::http {

// One request from its bytes, by Beast's parser and with less leniency, so that no other server in
// front can see another request in the same bytes: lines end with CR LF only, no folded fields, one
// length at most, Transfer-Encoding is "chunked" or absent, no chunk extensions, no trailers, one
// Host in HTTP/1.1. Pure; not thread-safe.
class RequestParser {
 public:
  struct Limits {
    std::size_t head_bytes = 32U << 10;
  };
  enum class State : std::uint8_t { kNeedMore, kDone, kBad };
  struct HeadFacts {
    std::optional<std::uint64_t> length;  // Of the body; nothing: in chunks, or there is none.
    bool has_body = false;
    bool keep_alive = true;
    bool expects_continue = false;
  };

  explicit RequestParser(const Limits& limits);
  ~RequestParser();
  RequestParser(RequestParser&&) noexcept;
  RequestParser& operator=(RequestParser&&) noexcept;

  // Reads the head from the bytes that came so far, always from the first. Done: `used` are the
  // head's bytes, the rest is the body's. Bad: see problem().
  State read_head(std::string_view bytes, std::size_t& used);
  // Reads body bytes and appends what they carry to `out`; `used` may be less than all. Stops when
  // `out` has grown to `out_max`. Done: the body has ended; what is left is the next request's.
  State read_body(std::string_view bytes, std::size_t& used, std::string& out, std::size_t out_max);

  const HeadFacts& facts() const { return facts_; }
  Request& request();  // From the head on.
  const Problem& problem() const { return problem_; }

 private:
  class Impl;
  State bad(int status, std::string message);
  bool head_is_sound(std::string_view head);

  Limits limits_;
  HeadFacts facts_;
  Problem problem_;
  std::size_t looked_at_ = 0;  // No end of the head before.
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::gateway::http
