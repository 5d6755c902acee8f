#include "common/wire/chunk_digest.hpp"

#include <sodium.h>

#include <algorithm>
#include <string_view>

namespace tessera::protocol {
namespace {

constexpr std::string_view kDomain = "tessera chunk 1";

bool is_zero(std::span<const std::uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

ChunkDigest digest_of(const ItemBlock& items) {
  CHECK(sodium_init() >= 0);
  crypto_generichash_state state;
  ChunkDigest digest{};
  crypto_generichash_init(&state, nullptr, 0, digest.size());
  const auto absorb = [&](const void* data, std::size_t bytes) {
    crypto_generichash_update(&state, static_cast<const unsigned char*>(data), bytes);
  };
  const auto count = static_cast<std::uint32_t>(items.sizes.size());
  absorb(kDomain.data(), kDomain.size());
  absorb(&count, sizeof(count));
  absorb(items.sizes.data(), items.sizes.size() * sizeof(std::uint32_t));
  if (items.kinds.empty()) {
    const std::vector<std::uint8_t> all_texts(items.sizes.size());
    absorb(all_texts.data(), all_texts.size());
  } else {
    absorb(items.kinds.data(), items.kinds.size());
  }
  absorb(items.payload.data(), items.payload.size());
  crypto_generichash_final(&state, digest.data(), digest.size());
  if (is_zero(digest)) {
    digest.back() = 1;  // All zero means that there is none.
  }
  return digest;
}

std::optional<ChunkDigest> to_digest(std::span<const std::uint8_t> bytes) {
  ChunkDigest digest{};
  if (bytes.size() != digest.size() || is_zero(bytes)) {
    return std::nullopt;
  }
  std::ranges::copy(bytes, digest.begin());
  return digest;
}

}  // namespace tessera::protocol
