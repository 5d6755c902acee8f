#include <algorithm>

#include "clients/cpp/items.hpp"
#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/services.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "clients/gateway/http/request_id.hpp"

// Whether the process lives, and whether a vector can be made now.
namespace tessera::gateway {
namespace {

using std::chrono::seconds;

constexpr seconds kProbeWait{10};
constexpr seconds kProbeHolds{5};  // One vector speaks for so long.

// One loop's knowledge of whether a vector can be made. Who asks while a probe is under way waits
// for its outcome.
class Readiness {
 public:
  explicit Readiness(Services& services) : services_(services) {}

  void ask(const http::ExchangePtr& exchange) {
    const std::string why = why_not();
    if (!why.empty() || http::Clock::now() - proven_at_ < kProbeHolds) {
      return answer(exchange, why);
    }
    waiting_.push_back(exchange);
    if (waiting_.size() == 1) {
      probe();
    }
  }

 private:
  // What is known without asking.
  std::string why_not() const {
    if (services_.draining()) {
      return "the gateway is stopping";
    }
    if (!services_.link.ready()) {
      return "no coordinator answers";
    }
    return served() == nullptr ? "no worker serves a model" : "";
  }

  const protocol::ModelInfo* served() const {
    const auto& models = services_.link.hello()->models;
    const auto found =
        std::ranges::find_if(models, [](const auto& model) { return model.workers > 0; });
    return found == models.end() ? nullptr : &*found;
  }

  // A text that nobody has asked for, past the cache: a worker must make the vector.
  void probe() {
    protocol::EmbedRequest request{.no_cache = true, .no_store = true};
    request.spec.model = served()->name;
    client::append_text(request.items, "readiness " + http::random_hex(8));
    services_.link.embed(
        std::move(request), kProbeWait,
        [this](const std::variant<protocol::Message, protocol::ErrorReply>& got) {
          const auto* error = std::get_if<protocol::ErrorReply>(&got);
          const auto* message = std::get_if<protocol::Message>(&got);
          const auto* reply =
              message == nullptr ? nullptr : std::get_if<protocol::EmbedReply>(message);
          const bool made = reply != nullptr && client::check_results(reply->results, 1) &&
                            reply->results.codes.front() == 0;
          // A coordinator that has more to do than it takes makes vectors all the time.
          const bool busy = error != nullptr && error->code == ErrorCode::kResourceExhausted;
          if (made || busy) {
            proven_at_ = http::Clock::now();
          }
          tell_all(made || busy       ? ""
                   : error != nullptr ? "no vector could be made: " + error->message
                                      : "no vector could be made");
        });
  }

  void tell_all(const std::string& why) {
    for (const http::ExchangePtr& exchange : std::exchange(waiting_, {})) {
      answer(exchange, why);
    }
  }

  static void answer(const http::ExchangePtr& exchange, const std::string& why) {
    http::Response response =
        why.empty()
            ? json_response(R"({"status":"ready"})")
            : json_response(R"({"status":"not ready","reason":)" + json_string(why) + "}", 503);
    response.headers.add("cache-control", "no-store");
    exchange->respond(std::move(response));
  }

  Services& services_;
  std::vector<http::ExchangePtr> waiting_;
  http::Clock::time_point proven_at_;  // The epoch: the machine's start, at the latest.
};

}  // namespace

void add_health_routes(http::Router& router, Services& services) {
  using Access = http::Route::Access;
  router.add(
      {.pattern = "/health/live",
       .handler =
           [](const http::ExchangePtr& e) { e->respond(json_response(R"({"status":"live"})")); },
       .access = Access::kOpen});
  const auto readiness = std::make_shared<Readiness>(services);
  for (const char* path : {"/health/ready", "/health"}) {  // TEI calls it /health.
    router.add({.pattern = path,
                .handler = [readiness](const http::ExchangePtr& e) { readiness->ask(e); },
                .access = Access::kOpen});
  }
}

}  // namespace tessera::gateway
