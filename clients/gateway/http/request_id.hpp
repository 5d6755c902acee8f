#pragma once

#include <string>
#include <string_view>

namespace tessera::gateway::http {

// The id of a request in headers and logs: the client's own when it has 1 to 128 bytes of letters,
// digits and -_.:, else "req_" and 32 random hex digits. Any thread.
std::string request_id_for(std::string_view proposed);

// Random hex digits from the kernel's generator, read ahead; two for each byte. Any thread.
std::string random_hex(std::size_t bytes);

}  // namespace tessera::gateway::http
