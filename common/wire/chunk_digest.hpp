#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/wire/protocol.hpp"

namespace tessera::protocol {

// Tells the items of a chunk from any others: BLAKE2b-128 of, one behind the other and
// little-endian, the 15 bytes "tessera chunk 1", the number of items (uint32), their sizes (uint32
// each), their kinds (one byte each, 0 where the block has none) and the payload. Never all zero.
using ChunkDigest = std::array<std::uint8_t, 16>;

ChunkDigest digest_of(const ItemBlock& items);

// As it came in a message; nothing when that is no digest.
std::optional<ChunkDigest> to_digest(std::span<const std::uint8_t> bytes);

}  // namespace tessera::protocol
