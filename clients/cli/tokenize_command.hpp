#pragma once

#include <CLI/CLI.hpp>

namespace tessera::cli {

// Adds `tessera tokenize` to the program: ids, pieces and counts of texts, for people who debug,
// and a JSON mode for scripts that compare. The command runs inside the parse, from CLI11's
// callback; it throws FatalError when the model's tokenizer cannot be loaded and
// CLI::RuntimeError(1) when a text cannot be encoded.
void add_tokenize_command(CLI::App& app);

}  // namespace tessera::cli
