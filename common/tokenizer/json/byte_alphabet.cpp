#include "common/tokenizer/json/byte_alphabet.hpp"

#include <array>
#include <cstdint>

namespace tessera::tokenizer {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

struct Alphabet {
  std::array<std::uint16_t, 256> code_point_of_byte{};
  std::array<std::int16_t, 512> byte_of_code_point{};

  constexpr Alphabet() {
    byte_of_code_point.fill(-1);
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const unsigned code_point = stands_for_itself(byte) ? byte : next++;
      code_point_of_byte[byte] = static_cast<std::uint16_t>(code_point);
      byte_of_code_point[code_point] = static_cast<std::int16_t>(byte);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

bool append_bytes_of_alphabet(std::string_view text, std::string& bytes) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned code_point = static_cast<unsigned char>(text[i]);
    if (code_point >= 0x80) {
      // The alphabet ends below U+0200, so only two-byte sequences can be in it.
      if ((code_point & 0xE0U) != 0xC0U || i + 1 == text.size()) {
        return false;
      }
      code_point = (code_point & 0x1FU) << 6U | (static_cast<unsigned char>(text[++i]) & 0x3FU);
    }
    if (code_point >= 512 || kAlphabet.byte_of_code_point[code_point] < 0) {
      return false;
    }
    bytes.push_back(static_cast<char>(kAlphabet.byte_of_code_point[code_point]));
  }
  return true;
}

std::string alphabet_of_byte(unsigned char byte) {
  const unsigned code_point = kAlphabet.code_point_of_byte[byte];
  if (code_point < 0x80) {
    return std::string(1, static_cast<char>(code_point));
  }
  return {static_cast<char>(0xC0U | code_point >> 6U),
          static_cast<char>(0x80U | (code_point & 0x3FU))};
}

}  // namespace tessera::tokenizer
