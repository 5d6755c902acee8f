#include "clients/gateway/encoding/quantise.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "common/check.hpp"

namespace tessera::gateway {
namespace {

constexpr std::array<std::pair<std::string_view, Dtype>, 6> kNames{{{"float", Dtype::kFloat},
                                                                    {"float16", Dtype::kFloat16},
                                                                    {"int8", Dtype::kInt8},
                                                                    {"uint8", Dtype::kUint8},
                                                                    {"binary", Dtype::kBinary},
                                                                    {"ubinary", Dtype::kUbinary}}};
constexpr float kStepsPerRms = 16.0F;
constexpr float kLargest = 127.0F;

int quantised(float value, float scale) {
  return static_cast<int>(std::lrint(std::clamp(value * scale, -kLargest, kLargest)));
}

std::uint8_t eight_bits(const float* values) {
  unsigned bits = 0;
  for (int i = 0; i < 8; ++i) {
    bits = bits << 1U | (values[i] > 0 ? 1U : 0U);
  }
  return static_cast<std::uint8_t>(bits);
}

}  // namespace

std::optional<Dtype> dtype_named(std::string_view name) {
  const auto found = std::ranges::find(kNames, name, &std::pair<std::string_view, Dtype>::first);
  return found == kNames.end() ? std::nullopt : std::optional(found->second);
}

std::string_view to_string(Dtype dtype) {
  return std::ranges::find(kNames, dtype, &std::pair<std::string_view, Dtype>::second)->first;
}

std::size_t bytes_per_vector(Dtype dtype, std::size_t dimensions) {
  switch (dtype) {
    case Dtype::kFloat:
      return dimensions * 4;
    case Dtype::kFloat16:
      return dimensions * 2;
    case Dtype::kInt8:
    case Dtype::kUint8:
      return dimensions;
    default:
      return dimensions / 8;
  }
}

float quantisation_scale(std::size_t dimensions) {
  return kStepsPerRms * std::sqrt(static_cast<float>(dimensions));
}

void append_int8(std::span<const float> row, std::vector<std::int8_t>& out) {
  const float scale = quantisation_scale(row.size());
  for (const float value : row) {
    out.push_back(static_cast<std::int8_t>(quantised(value, scale)));
  }
}

void append_uint8(std::span<const float> row, std::vector<std::uint8_t>& out) {
  const float scale = quantisation_scale(row.size());
  for (const float value : row) {
    out.push_back(static_cast<std::uint8_t>(quantised(value, scale) + 128));
  }
}

void append_ubinary(std::span<const float> row, std::vector<std::uint8_t>& out) {
  CHECK(row.size() % 8 == 0);
  for (std::size_t i = 0; i < row.size(); i += 8) {
    out.push_back(eight_bits(row.data() + i));
  }
}

void append_binary(std::span<const float> row, std::vector<std::int8_t>& out) {
  CHECK(row.size() % 8 == 0);
  for (std::size_t i = 0; i < row.size(); i += 8) {
    out.push_back(static_cast<std::int8_t>(static_cast<int>(eight_bits(row.data() + i)) - 128));
  }
}

}  // namespace tessera::gateway
