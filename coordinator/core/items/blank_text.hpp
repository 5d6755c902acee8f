#pragma once

#include <string_view>

namespace tessera::coordinator {

// Whether the text has no character but Unicode white space. Any bytes.
bool is_blank(std::string_view text);

}  // namespace tessera::coordinator
