#pragma once

#include <cstddef>
#include <span>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::protocol {

// The frames of one message. `payload` is empty for messages without one.
struct Frames {
  Bytes header;
  Bytes payload;
};

// Moves the payload out of `message`. CHECKs that the message keeps the limits.
Frames encode(Message message);

// Reads a message from bytes that anybody may have sent. Depth, counts and sizes are checked
// against the limits and against the bytes that are there before anything is allocated. Errors:
// kInvalidArgument, kUnsupportedVersion. Takes the payload over.
Result<Message> decode(std::span<const std::byte> header, Bytes payload);

}  // namespace tessera::protocol
