#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "common/tokenizer/tokenizer.hpp"

namespace tessera {

// Writes what a peer that only merges needs: `vocabulary`, the tokens
// by id up to the first added one, and for each named set
// of texts a file of that name, with _ for spaces, of the normalised and split pieces. Each is a
// record of a little-endian 32-bit length and so many bytes.
void write_pieces(const Tokenizer& tokenizer,
                  const std::vector<std::pair<std::string, std::vector<std::string>>>& sets,
                  const std::filesystem::path& folder);

}  // namespace tessera
