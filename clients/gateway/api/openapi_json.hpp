#pragma once

#include <string_view>

namespace tessera::gateway {

// The text of openapi.json beside this file, compiled in.
extern const std::string_view kOpenApiJson;

}  // namespace tessera::gateway
