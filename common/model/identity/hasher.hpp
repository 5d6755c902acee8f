#pragma once

// BLAKE2b-256 in pieces. Included by the files of this folder alone, which link libsodium.

#include <sodium.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "common/check.hpp"
#include "common/model/identity/digest.hpp"

namespace tessera {

class Hasher {
 public:
  Hasher() {
    CHECK(sodium_init() >= 0);  // Before it the library computes without vector instructions.
    crypto_generichash_init(&state_, nullptr, 0, std::tuple_size_v<Digest>);
  }

  void raw(std::span<const std::byte> bytes) {
    crypto_generichash_update(&state_, reinterpret_cast<const unsigned char*>(bytes.data()),
                              bytes.size());
  }
  void raw(std::uint64_t number) { raw(std::as_bytes(std::span(&number, 1))); }
  // Length first, so that two neighbouring fields cannot be split in another way.
  void field(std::span<const std::byte> bytes) {
    raw(std::uint64_t{bytes.size()});
    raw(bytes);
  }
  void field(std::string_view text) { field(std::as_bytes(std::span(text))); }

  Digest finish() {
    Digest digest;
    crypto_generichash_final(&state_, reinterpret_cast<unsigned char*>(digest.data()),
                             digest.size());
    return digest;
  }

 private:
  crypto_generichash_state state_;
};

}  // namespace tessera
