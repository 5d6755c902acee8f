#pragma once

#include <CLI/CLI.hpp>

#include "clients/cli/io/readers.hpp"

namespace tessera::cli {

// --input-format, --field, --id-field, --no-ids, --delimiter, --quote, --no-header, --encoding: the
// same for every command that reads items from files.
void add_read_options(CLI::App& command, ReadOptions& options);

// --encoding by itself.
void add_encoding_option(CLI::App& command, std::string& encoding);

}  // namespace tessera::cli
