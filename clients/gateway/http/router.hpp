#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clients/gateway/http/message.hpp"

namespace tessera::gateway::http {

class Loop;

// One request that is being served. Handlers keep it as long as they work on it, on the loop's
// thread; when the client is gone everything below does nothing.
class Exchange {
 public:
  struct BodyPart {
    enum class Kind : std::uint8_t { kData, kEnd, kFailed };
    Kind kind = Kind::kFailed;
    std::string data;  // Of kData: not empty, at most 64 KiB. kFailed: the client is gone.
  };
  virtual ~Exchange() = default;
  virtual Request& request() = 0;
  virtual Loop& loop() = 0;
  // Answers; once. With a streamed body that was not read to its end, the connection is closed
  // afterwards. HEAD gets the head alone.
  virtual void respond(Response response) = 0;
  // The next part of a streamed body (Route::Body::kStreamed); one call at a time. The client is
  // read from only so: a handler that waits makes it wait.
  virtual void read_body(std::function<void(BodyPart)> part) = 0;
  // Whether the client is still there.
  virtual bool alive() const = 0;
};
using ExchangePtr = std::shared_ptr<Exchange>;
using Handler = std::function<void(const ExchangePtr&)>;

// Whose form errors take, and what the route's users know it from.
enum class Family : std::uint8_t { kPlain, kOpenAi, kTei, kCohere, kOllama };

struct Route {
  enum class Body : std::uint8_t { kNone, kWhole, kStreamed };
  enum class Access : std::uint8_t {
    kKey,   // Where the server has keys, one is needed.
    kOpen,  // Anybody: health.
  };
  Method method = Method::kGet;
  std::string pattern;  // "/v1/files/{id}/content": {name} takes one segment.
  Family family = Family::kPlain;
  Handler handler;
  Body body = Body::kNone;
  Access access = Access::kKey;
};

// The routes of one loop. GET routes answer HEAD, too, and OPTIONS tells what a path takes.
class Router {
 public:
  struct Match {
    const Route* route = nullptr;  // None: see the rest.
    std::string allowed;           // Not empty: the path is there, with these methods.
    Family family = Family::kPlain;
  };
  // CHECKs that method and pattern are not there yet.
  void add(Route route);
  // Finds the route and fills the request's path values.
  Match find(Request& request) const;
  const std::vector<std::unique_ptr<Route>>& routes() const { return routes_; }

 private:
  std::vector<std::unique_ptr<Route>> routes_;
};

}  // namespace tessera::gateway::http
