#pragma once

#include <string>
#include <string_view>

#include "clients/gateway/http/message.hpp"
#include "clients/gateway/http/router.hpp"

namespace tessera::gateway {

// A problem in its family's form: body, and the headers that clients obey (retry-after, within
// 1..60 s and with jitter so that many do not come back at once; x-should-retry).
http::Response respond_to_problem(http::Family family, const http::Problem& problem);

// 400 about one field: "FIELD sentence".
http::Problem invalid_value(std::string_view field, std::string_view sentence);

http::Response json_response(std::string body, int status = 200);

}  // namespace tessera::gateway
