#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace tessera::gateway {

constexpr std::size_t base64_length(std::size_t bytes) { return (bytes + 2) / 3 * 4; }

// Appends the standard alphabet's form (RFC 4648, section 4, with padding).
void append_base64(std::span<const std::byte> bytes, std::string& out);

}  // namespace tessera::gateway
