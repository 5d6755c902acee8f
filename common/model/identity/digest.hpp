#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

using Digest = std::array<std::byte, 32>;

// BLAKE2b-256 of bytes, and its 64 lower-case hexadecimal digits.
Digest blake2b(std::span<const std::byte> bytes);
std::string to_hex(const Digest& digest);
// Nothing where the text is not what to_hex writes.
std::optional<Digest> from_hex(std::string_view hex);

}  // namespace tessera
