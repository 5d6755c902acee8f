#include "coordinator/core/items/key_hasher.hpp"

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::string_view kKeyDomain = "tessera cache key 1";

void absorb(crypto_generichash_state& state, const void* data, std::size_t bytes) {
  crypto_generichash_update(&state, static_cast<const unsigned char*>(data), bytes);
}

void absorb_number(crypto_generichash_state& state, std::uint64_t number) {
  absorb(state, &number, sizeof(number));
}

CacheKey finish(crypto_generichash_state& state) {
  CacheKey key;
  crypto_generichash_final(&state, reinterpret_cast<unsigned char*>(key.data()), key.size());
  return key;
}

}  // namespace

KeyHasher::KeyHasher(std::string_view fingerprint, const ResolvedSpec& spec,
                     std::uint32_t max_tokens)
    : prefix_(spec.prefix) {
  CHECK(sodium_init() >= 0);
  crypto_generichash_init(&shared_, nullptr, 0, sizeof(CacheKey));
  absorb(shared_, kKeyDomain.data(), kKeyDomain.size());
  absorb_number(shared_, fingerprint.size());
  absorb(shared_, fingerprint.data(), fingerprint.size());
  absorb_number(shared_, static_cast<std::uint64_t>(spec.truncate));
  absorb_number(shared_, max_tokens);
}

CacheKey KeyHasher::text_key(std::string_view text) const {
  crypto_generichash_state state = shared_;
  absorb_number(state, static_cast<std::uint64_t>(protocol::ItemKind::kText));
  absorb_number(state, prefix_.size() + text.size());
  absorb(state, prefix_.data(), prefix_.size());
  absorb(state, text.data(), text.size());
  return finish(state);
}

CacheKey KeyHasher::ids_key(std::span<const std::int32_t> ids) const {
  crypto_generichash_state state = shared_;
  absorb_number(state, static_cast<std::uint64_t>(protocol::ItemKind::kTokenIds));
  absorb_number(state, ids.size());
  absorb(state, ids.data(), ids.size_bytes());
  return finish(state);
}

}  // namespace tessera::coordinator
