#pragma once

#include <cstdint>
#include <span>

namespace tessera {

// IEEE 754 binary16 by its bits, as vectors are stored and sent. Rounding is to nearest even;
// values beyond the range become infinity, NaN stays NaN. Uses the CPU's F16C instructions where it
// has them.
std::uint16_t to_float16(float value);
float from_float16(std::uint16_t bits);

// Requires spans of equal length.
void to_float16(std::span<const float> in, std::span<std::uint16_t> out);
void from_float16(std::span<const std::uint16_t> in, std::span<float> out);

}  // namespace tessera
