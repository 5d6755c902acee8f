#include <cstdio>
#include <cstdlib>

#include "common/log.hpp"
#include "common/os/stop_signal.hpp"
#include "worker/create_engine.hpp"
#include "worker/engine/self_test.hpp"
#include "worker/link/batch_runner.hpp"
#include "worker/link/link.hpp"
#include "worker/link/options.hpp"

namespace {

// Ends the process without waiting for the engine's thread, which may hang.
[[noreturn]] void exit_now(int code) {
  tessera::log::shutdown();
  std::_Exit(code);
}

// Refuses before the weights are loaded what the self-tests would find behind them.
tessera::ModelFolder read_model(const tessera::worker::EngineOptions& options) {
  auto model = tessera::value_or_fatal(tessera::read_model_folder(options.model_dir));
  (void)tessera::value_or_fatal(tessera::load_tokenizer(model));
  return model;
}

// Prints every self-test; the exit code says whether all passed.
int verify(const tessera::worker::EngineOptions& options) {
  const auto model = read_model(options);
  const auto engine = tessera::worker::create_engine(options);
  std::printf("%s on %s, fingerprint %s\n", engine->info().model_name.c_str(),
              engine->info().device.c_str(), engine->info().fingerprint.c_str());
  bool all_passed = true;
  for (const auto& result : tessera::worker::run_self_tests(*engine, model)) {
    std::printf("%-6s %s%s%s\n", result.passed ? "ok" : "FAILED", result.what.c_str(),
                result.detail.empty() ? "" : ": ", result.detail.c_str());
    all_passed = all_passed && result.passed;
  }
  return all_passed ? EXIT_SUCCESS : EXIT_FAILURE;
}

// Loads and tests the engine that will serve.
std::unique_ptr<tessera::worker::Engine> create_tested(
    const tessera::worker::EngineOptions& options) {
  const auto model = read_model(options);
  auto engine = tessera::worker::create_engine(options);
  for (const auto& result : tessera::worker::run_self_tests(*engine, model)) {
    if (!result.passed) {
      throw tessera::FatalError("self-test failed: " + result.what + ": " + result.detail);
    }
  }
  return engine;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tessera;
  using namespace tessera::worker;
  try {
    const WorkerOptions options = parse_worker_options(argc, argv);
    if (options.verify) {
      return verify(options.engine);
    }
    const StopSignal stop;
    const net::WakeUp results_ready;
    BatchRunner runner([&] { return create_tested(options.engine); }, results_ready);
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
      log::error("{}; {} batches are left to other workers", error.what(), runner.held());
      exit_now(EXIT_FAILURE);
    }
    log::info("stopped");
    return EXIT_SUCCESS;
  } catch (const FatalError& error) {
    log::error("{}", error.what());
    exit_now(EXIT_FAILURE);
  }
}
