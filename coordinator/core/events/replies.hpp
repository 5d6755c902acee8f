#pragma once

#include <string>
#include <utility>

#include "coordinator/core/events/events.hpp"

namespace tessera::coordinator {

// The one form in which a client's message is refused.
inline void reply_error(const std::string& peer, std::uint64_t request_id, Error error,
                        Actions& actions, std::uint32_t retry_after_ms = 0) {
  actions.push_back(SendClient{peer, protocol::ErrorReply{.request_id = request_id,
                                                          .code = error.code,
                                                          .message = std::move(error.message),
                                                          .retry_after_ms = retry_after_ms}});
}

// A message that could not be decoded is refused to whoever waits for its answer.
inline void reply_bad_message(const BadFromClient& bad, Actions& actions) {
  if (bad.origin.job_id.empty()) {
    return reply_error(bad.peer, bad.origin.request_id, bad.error, actions);
  }
  actions.push_back(SendClient{bad.peer, protocol::ChunkAck{.job_id = bad.origin.job_id,
                                                            .chunk = bad.origin.chunk,
                                                            .code = bad.error.code,
                                                            .message = bad.error.message}});
}

}  // namespace tessera::coordinator
