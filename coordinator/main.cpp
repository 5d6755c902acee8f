#include <cstdlib>
#include <exception>
#include <iostream>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/os/stop_signal.hpp"
#include "coordinator/coordinator.hpp"
#include "coordinator/options.hpp"

int main(int argc, char** argv) {
  using namespace tessera;
  try {
    coordinator::Options options;
    if (!coordinator::parse_options(argc, argv, options)) {
      return EXIT_SUCCESS;
    }
    log::init("coordinator", options.log_level,
              options.log_json ? log::Form::kJson : log::Form::kText);
    log::info("options\n{}", options.printed);
    for (const std::string& warning : options.warnings) {
      log::warn("{}", warning);
    }
    const StopSignal stop;
    coordinator::Coordinator process(options);
    return process.run(stop) ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const FatalError& error) {
    std::cerr << "tessera-coordinator: " << error.what() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "tessera-coordinator: unexpected: " << error.what() << "\n";
  }
  return EXIT_FAILURE;
}
