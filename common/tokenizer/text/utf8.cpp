#include "common/tokenizer/text/utf8.hpp"

#include <simdjson.h>

#include <cstdint>

namespace tessera::tokenizer {
namespace {

struct Sequence {
  unsigned length;  // Bytes of the valid sequence, or of the maximal ill-formed part; at least 1.
  bool valid;
};

// Table 3-7 of the Unicode standard: which second bytes a lead byte takes.
Sequence read_sequence(std::string_view text) {
  const auto byte = [text](unsigned i) { return static_cast<std::uint8_t>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return {1, true};
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return {1, false};
  }
  const unsigned length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const unsigned lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (unsigned i = 1; i < length; ++i) {
    if (i == text.size() || byte(i) < (i == 1 ? lowest : 0x80) ||
        byte(i) > (i == 1 ? highest : 0xBF)) {
      return {i, false};
    }
  }
  return {length, true};
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  return simdjson::validate_utf8(text.data(), text.size());
}

std::size_t first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Sequence sequence = read_sequence(text.substr(at, 4));
    if (!sequence.valid) {
      return at;
    }
    at += sequence.length;
  }
  return at;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  while (!text.empty()) {
    const Sequence sequence = read_sequence(text.substr(0, 4));
    if (sequence.valid) {
      out.append(text.substr(0, sequence.length));
    } else {
      out.append("\xEF\xBF\xBD");
    }
    text.remove_prefix(sequence.length);
  }
  return out;
}

}  // namespace tessera::tokenizer
