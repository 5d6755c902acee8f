#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace tessera::gateway {

// The number formats in which a client may ask for vectors (output_dtype).
enum class Dtype : std::uint8_t { kFloat, kFloat16, kInt8, kUint8, kBinary, kUbinary };
std::optional<Dtype> dtype_named(std::string_view name);
std::string_view to_string(Dtype dtype);
// Bytes of one vector; the binary ones take a width that divides by 8.
std::size_t bytes_per_vector(Dtype dtype, std::size_t dimensions);

// The scale of int8 and uint8 depends on nothing but the width, so that vectors of different
// requests, days and models' versions compare: with s = 16 * sqrt(dimensions),
//   int8  = round(x * s), kept within -127..127      x ~ int8 / s
//   uint8 = int8 + 128                               x ~ (uint8 - 128) / s
// A unit vector's values have a root mean square of 1 / sqrt(dimensions), which becomes 16 steps;
// what is cut lies beyond 7.9 times that. The dot product of two int8 vectors is 256 * dimensions
// times their cosine.
float quantisation_scale(std::size_t dimensions);
void append_int8(std::span<const float> row, std::vector<std::int8_t>& out);
void append_uint8(std::span<const float> row, std::vector<std::uint8_t>& out);

// One bit a value, set where it is above 0, the first in the highest bit of the first byte.
// "binary" is the same byte minus 128 as a signed one.
void append_ubinary(std::span<const float> row, std::vector<std::uint8_t>& out);
void append_binary(std::span<const float> row, std::vector<std::int8_t>& out);

}  // namespace tessera::gateway
