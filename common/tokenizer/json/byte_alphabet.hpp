#pragma once

#include <string>
#include <string_view>

namespace tessera::tokenizer {

// The byte-level alphabet of GPT-2: each of the 256 bytes is written as one printable character.
// Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100, U+0101, ...

// Appends the bytes that `text` stands for; false, with `bytes` unspecified, when a character is
// not in the alphabet.
bool append_bytes_of_alphabet(std::string_view text, std::string& bytes);

// The alphabet's character for one byte, as UTF-8.
std::string alphabet_of_byte(unsigned char byte);

}  // namespace tessera::tokenizer
