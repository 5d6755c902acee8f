#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace tessera::cli {

// Adds `tessera model make|inspect|verify`. When the user chose one of them, parsing leaves what is
// to be done in `run`; it returns the exit code and may throw FatalError.
//
// `verify` needs an engine, which no client may link: it becomes the `tessera-worker` beside the
// running program, which does the work under --verify.
void add_model_commands(CLI::App& app, std::function<int()>& run);

}  // namespace tessera::cli
