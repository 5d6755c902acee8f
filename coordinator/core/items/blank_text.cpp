#include "coordinator/core/items/blank_text.hpp"

#include <cstddef>

namespace tessera::coordinator {
namespace {

// The code points of Unicode's White_Space property.
bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// White space lies below U+3001, so a lead byte for longer sequences already decides.
char32_t decode_short(std::string_view text, std::size_t at, std::size_t& length) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned lead = byte(at);
  if (lead < 0x80) {
    length = 1;
    return lead;
  }
  if (lead >= 0xC2 && lead < 0xE0) {
    length = 2;
    return ((lead & 0x1FU) << 6U) | (byte(at + 1) & 0x3FU);
  }
  length = 3;
  return lead < 0xF0 && at + 3 <= text.size()
             ? ((lead & 0xFU) << 12U) | ((byte(at + 1) & 0x3FU) << 6U) | (byte(at + 2) & 0x3FU)
             : 0xFFFFU;
}

}  // namespace

bool is_blank(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 1;
    if (!is_white_space(decode_short(text, at, length))) {
      return false;
    }
    at += length;
  }
  return true;
}

}  // namespace tessera::coordinator
