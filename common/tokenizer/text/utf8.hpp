#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tessera::tokenizer {

// One code point and the bytes it takes.
struct Decoded {
  char32_t code_point;
  unsigned length;
};

// Decodes the code point that starts at `at`; the text must be valid UTF-8 there.
inline Decoded decode_utf8(const char* at) {
  const auto byte = [at](unsigned i) {
    return static_cast<unsigned>(static_cast<unsigned char>(at[i]));
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return {lead, 1};
  }
  if (lead < 0xE0) {
    return {(lead & 0x1FU) << 6U | (byte(1) & 0x3FU), 2};
  }
  if (lead < 0xF0) {
    return {(lead & 0xFU) << 12U | (byte(1) & 0x3FU) << 6U | (byte(2) & 0x3FU), 3};
  }
  return {
      (lead & 7U) << 18U | (byte(1) & 0x3FU) << 12U | (byte(2) & 0x3FU) << 6U | (byte(3) & 0x3FU),
      4};
}

bool is_valid_utf8(std::string_view text);

// The offset of the first byte that is no part of a valid sequence; text.size() when there is none.
std::size_t first_invalid_utf8(std::string_view text);

// A copy in which each maximal part of an ill-formed sequence is one U+FFFD, as Unicode recommends
// and as the WHATWG decoder and Rust's lossy conversion do.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace tessera::tokenizer
