#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/openapi_json.hpp"
#include "clients/gateway/api/services.hpp"

namespace tessera::gateway {

void add_openapi_route(http::Router& router, Services& /*services*/) {
  router.add({.pattern = "/openapi.json", .handler = [](const http::ExchangePtr& e) {
                e->respond(json_response(std::string(kOpenApiJson)));
              }});
}

}  // namespace tessera::gateway
