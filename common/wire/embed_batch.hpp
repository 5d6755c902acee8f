#pragma once

#include <vector>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::protocol {

// Messages that carry several embed requests or replies: the payloads of all lie one behind the
// other in the message's own. Packing CHECKs that they keep kPayloadBytesMax; unpacking judges what
// anybody may have sent and gives kInvalidArgument.
EmbedRequests pack(std::vector<EmbedRequest> requests);
Result<std::vector<EmbedRequest>> unpack(EmbedRequests batch);
EmbedReplies pack(std::vector<EmbedReply> replies);
Result<std::vector<EmbedReply>> unpack(EmbedReplies batch);

// Bytes of one row of the results.
std::size_t row_bytes(const ResultBlock& results);

}  // namespace tessera::protocol
