#pragma once

#include <chrono>
#include <string>

namespace tessera::client {

struct ClientOptions {
  std::string coordinator = "tcp://127.0.0.1:7400";
  std::string name = "libtessera";  // Program and version, for the coordinator's log.
  std::string tenant;               // Fair share is per tenant.
  std::chrono::milliseconds ping{1000};
  // Nothing heard for so long: a fresh socket, as when the connection breaks.
  std::chrono::milliseconds silence_max{5000};
  // How often the hello is repeated: a coordinator that was restarted behind our back has another
  // epoch, and what was in flight is sent again.
  std::chrono::milliseconds hello_again{2000};
};

}  // namespace tessera::client
