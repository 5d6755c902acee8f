#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tessera::protocol {

// Who waits for an answer to a message, as far as its header says so.
struct Origin {
  std::uint64_t request_id = 0;  // 0: the message has none, or it is not readable.
  std::string job_id;            // Of a SubmitChunk; empty unless
  std::uint32_t chunk = 0;       // both are readable.
};

// Reads it from a header that `decode` refuses, so that the refusal reaches who waits for it: wrong
// types, values or lengths in other fields, what is cut off behind, and message types that this
// version does not know do not matter. Takes any bytes, looks at no more than kHeaderBytesMax of
// them, and allocates nothing but the job id, of at most kNameBytesMax.
Origin read_origin(std::span<const std::byte> header);

}  // namespace tessera::protocol
