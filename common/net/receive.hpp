#pragma once

#include <utility>

#include "common/net/zmq_socket.hpp"
#include "common/wire/codec.hpp"

namespace tessera::net {

// The message in what a socket received, whose payload it takes; kInvalidArgument where there were
// not one or two frames, or the codec's error.
inline Result<protocol::Message> decode(Incoming& incoming) {
  if (incoming.malformed) {
    return Error{ErrorCode::kInvalidArgument, "a message has one or two frames"};
  }
  return protocol::decode(incoming.header, std::move(incoming.payload));
}

}  // namespace tessera::net
