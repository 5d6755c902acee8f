#pragma once

#include <string>
#include <vector>

#include "clients/cli/io/record.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::cli {

struct DryRunOptions {
  bool asked = false;
  std::size_t items = 5;
  std::string model_dir;  // Whose prompts are shown; empty: only an own instruction is known.
};

// Prints the first items of `reader` as they would be embedded, an object of JSON a line: id, file,
// line, and text with the prompt before it, or token ids, or error. `inputs`: the names of the
// reader's files. Needs no cluster. Throws FatalError when the folder has no such prompt.
void print_first_items(RecordReader& reader, const std::vector<std::string>& inputs,
                       const protocol::EmbedSpec& spec, const DryRunOptions& options);

}  // namespace tessera::cli
