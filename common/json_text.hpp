#pragma once

#include <string>
#include <string_view>

namespace tessera {

// Appends the text as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, so
// that the result is valid JSON whatever came in.
void append_json_string(std::string& out, std::string_view text);

// The bytes at the text's begin that are one UTF-8 character; 0 where they are none, or the text is
// empty.
std::size_t utf8_character(std::string_view text);

}  // namespace tessera
