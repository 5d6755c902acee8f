#include "common/model/identity/digest.hpp"

#include "common/model/identity/hasher.hpp"

namespace tessera {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

}  // namespace

Digest blake2b(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.raw(bytes);
  return hasher.finish();
}

std::string to_hex(const Digest& digest) {
  std::string text;
  for (const std::byte b : digest) {
    text += kDigits[std::to_integer<std::size_t>(b >> 4)];
    text += kDigits[std::to_integer<std::size_t>(b & std::byte{15})];
  }
  return text;
}

std::optional<Digest> from_hex(std::string_view hex) {
  Digest digest;
  if (hex.size() != 2 * digest.size()) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < digest.size(); ++i) {
    const std::size_t high = kDigits.find(hex[2 * i]), low = kDigits.find(hex[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return std::nullopt;
    }
    digest[i] = static_cast<std::byte>(high << 4 | low);
  }
  return digest;
}

}  // namespace tessera
