#pragma once

#include <string>
#include <utility>

#include "coordinator/core/events.hpp"

namespace tessera::coordinator {

// The one form in which a client's message is refused.
inline void reply_error(const std::string& peer, std::uint64_t request_id, Error error,
                        Actions& actions, std::uint32_t retry_after_ms = 0) {
  actions.push_back(SendClient{peer, protocol::ErrorReply{.request_id = request_id,
                                                          .code = error.code,
                                                          .message = std::move(error.message),
                                                          .retry_after_ms = retry_after_ms}});
}

}  // namespace tessera::coordinator
