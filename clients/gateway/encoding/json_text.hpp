#pragma once

#include <string>
#include <string_view>

namespace tessera::gateway {

// Appends the text as a JSON string, in quotes. Control characters, quotes and backslashes are
// escaped; ill-formed UTF-8 becomes U+FFFD, so that the answer is valid JSON whatever came in.
void append_json_string(std::string_view text, std::string& out);
std::string json_string(std::string_view text);

}  // namespace tessera::gateway
