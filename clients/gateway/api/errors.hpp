#pragma once

#include "clients/gateway/http/message.hpp"
#include "clients/gateway/http/router.hpp"

namespace tessera::gateway {

// A problem in its family's form: body, and the headers that clients obey (retry-after, within
// 1..60 s and with jitter so that many do not come back at once; x-should-retry).
http::Response respond_to_problem(http::Family family, const http::Problem& problem);

http::Response json_response(std::string body, int status = 200);

}  // namespace tessera::gateway
