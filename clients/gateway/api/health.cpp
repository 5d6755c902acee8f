#include <algorithm>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/services.hpp"
#include "clients/gateway/encoding/json_text.hpp"

// Whether the process lives, and whether a vector can be made now.
namespace tessera::gateway {
namespace {

std::string why_not_ready(const Services& services) {
  if (services.draining()) {
    return "the gateway is stopping";
  }
  if (!services.link.ready()) {
    return "no coordinator answers";
  }
  const auto& models = services.link.hello()->models;
  const bool worker =
      std::ranges::any_of(models, [](const auto& model) { return model.workers > 0; });
  return worker ? "" : "no worker serves a model";
}

void ready(Services& services, const http::ExchangePtr& exchange) {
  const std::string why = why_not_ready(services);
  http::Response response =
      why.empty()
          ? json_response(R"({"status":"ready"})")
          : json_response(R"({"status":"not ready","reason":)" + json_string(why) + "}", 503);
  response.headers.add("cache-control", "no-store");
  exchange->respond(std::move(response));
}

}  // namespace

void add_health_routes(http::Router& router, Services& services) {
  using Access = http::Route::Access;
  router.add(
      {.pattern = "/health/live",
       .handler =
           [](const http::ExchangePtr& e) { e->respond(json_response(R"({"status":"live"})")); },
       .access = Access::kOpen});
  for (const char* path : {"/health/ready", "/health"}) {  // TEI calls it /health.
    router.add({.pattern = path,
                .handler = [&services](const http::ExchangePtr& e) { ready(services, e); },
                .access = Access::kOpen});
  }
}

}  // namespace tessera::gateway
