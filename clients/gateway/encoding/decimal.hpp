#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tessera::gateway {

// Append the numbers with commas between: the shortest decimals that read back as the same value
// (std::to_chars), which JSON takes as they are. Values must be finite: a worker lets no other out.
void append_decimals(std::span<const float> values, std::string& out);
void append_integers(std::span<const std::int8_t> values, std::string& out);
void append_integers(std::span<const std::uint8_t> values, std::string& out);
void append_integer(std::uint64_t value, std::string& out);

}  // namespace tessera::gateway
