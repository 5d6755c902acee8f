#include <cstdlib>

#include "common/log.hpp"
#include "common/stop_signal.hpp"
#include "worker/batch_runner.hpp"
#include "worker/link.hpp"
#include "worker/options.hpp"

namespace {

// Ends the process without waiting for the engine's thread, which may hang.
[[noreturn]] void exit_now(int code) {
  spdlog::shutdown();
  std::_Exit(code);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tessera;
  try {
    const WorkerOptions options = parse_worker_options(argc, argv);
    const StopSignal stop;
    const net::WakeUp results_ready;
    BatchRunner runner([&] { return Engine::create(options.engine); }, results_ready);
    std::optional<EngineInfo> info;
    while (!(info = runner.wait_ready(std::chrono::milliseconds(100)))) {
      if (stop.take()) {
        exit_now(EXIT_SUCCESS);
      }
    }
    try {
      if (!Link(options, *info, runner, results_ready).run(stop)) {
        exit_now(EXIT_SUCCESS);
      }
    } catch (const FatalError& error) {
      log::error("{}", error.what());
      exit_now(EXIT_FAILURE);
    }
    log::info("stopped");
    return EXIT_SUCCESS;
  } catch (const FatalError& error) {
    log::error("{}", error.what());
    return EXIT_FAILURE;
  }
}
