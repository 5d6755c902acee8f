#include <malloc.h>
#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>

#include "clients/gateway/auth/key_file.hpp"
#include "clients/gateway/gateway.hpp"
#include "clients/gateway/options.hpp"
#include "common/check.hpp"
#include "common/log.hpp"
#include "common/os/stop_signal.hpp"

namespace {

constexpr int kKeptMemory = 32 << 20;  // By each arena of malloc, at its end.

// Vectors come and answers go in buffers of 100 KB and more. By itself malloc gives such a buffer's
// pages back to the system at each free(), and the next one pays for fresh, zeroed pages: more than
// half of what an answer of 32 vectors cost.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, kKeptMemory);
  mallopt(M_TRIM_THRESHOLD, kKeptMemory);
#endif
}

int print_new_key(const std::string& name) {
  const auto made = tessera::gateway::make_key(name);
  if (!made) {
    throw tessera::FatalError(made.error().message);
  }
  std::cerr << "the key, which is not shown again:\n  " << made->key
            << "\nthe line for the keys' file:\n";
  std::cout << made->line << "\n";
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tessera;
  try {
    gateway::Options options;
    if (!gateway::parse_options(argc, argv, options)) {
      return EXIT_SUCCESS;
    }
    if (!options.new_key.empty()) {
      return print_new_key(options.new_key);
    }
    if (options.list_routes) {
      for (const std::string& route : gateway::Gateway::routes()) {
        std::cout << route << "\n";
      }
      return EXIT_SUCCESS;
    }
    keep_freed_memory();
    log::init("gateway", options.log_level, options.log_json ? log::Form::kJson : log::Form::kText);
    log::info("options\n{}", options.printed);
    // Before any thread starts, so that all have them blocked.
    std::signal(SIGPIPE, SIG_IGN);
    sigset_t hangup;
    sigemptyset(&hangup);
    sigaddset(&hangup, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &hangup, nullptr);
    const StopSignal stop;
    gateway::Gateway process(options);
    return process.run(stop) ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const FatalError& error) {
    std::cerr << "tessera-gateway: " << error.what() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "tessera-gateway: unexpected: " << error.what() << "\n";
  }
  return EXIT_FAILURE;
}
