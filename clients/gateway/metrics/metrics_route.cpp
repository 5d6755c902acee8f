#include "clients/gateway/metrics/metrics_route.hpp"

#include <set>

#include "clients/gateway/metrics/exposition.hpp"
#include "clients/gateway/metrics/gateway_metrics.hpp"

namespace tessera::gateway {
namespace {

constexpr std::chrono::milliseconds kAnswerWait{3000};  // Prometheus waits for 10 s.

using Families = std::vector<protocol::MetricFamily>;

// A name that comes twice would spoil the whole text for its reader.
Families joined(Families own, Families others) {
  std::set<std::string> names;
  for (const protocol::MetricFamily& family : own) {
    names.insert(family.name);
  }
  for (protocol::MetricFamily& family : others) {
    if (is_sound(family) && names.insert(family.name).second) {
      own.push_back(std::move(family));
    }
  }
  return own;
}

void respond(const http::ExchangePtr& exchange, Families families) {
  http::Response response;
  response.content_type = kExpositionType;
  response.headers.add("cache-control", "no-store");
  response.source = exposition_body(std::move(families));
  exchange->respond(std::move(response));
}

}  // namespace

void gather_metrics(Services& services, std::function<void(Families)> done) {
  const auto& hello = services.link.hello();
  if (!services.link.ready() || !hello || hello->minor < protocol::kMinorWithMetrics) {
    return done(services.metrics.families());
  }
  const auto question = [](std::uint64_t id) {
    return protocol::Message(protocol::MetricsRequest{.request_id = id});
  };
  services.link.ask(
      question, kAnswerWait,
      [&services,
       done = std::move(done)](std::variant<protocol::Message, protocol::ErrorReply> answer) {
        auto* message = std::get_if<protocol::Message>(&answer);
        auto* reply = message == nullptr ? nullptr : std::get_if<protocol::MetricsReply>(message);
        done(joined(services.metrics.families(),
                    reply == nullptr ? Families{} : std::move(reply->families)));
      });
}

void add_metrics_routes(http::Router& router, Services& services) {
  router.add({.pattern = "/metrics", .handler = [&services](const http::ExchangePtr& exchange) {
                gather_metrics(services, [exchange](Families families) {
                  respond(exchange, std::move(families));
                });
              }});
}

}  // namespace tessera::gateway
