#pragma once

#include <filesystem>

namespace tessera {

// The folder of the data that ships with the program (demo-model, sample, tokenizers): installed at
// ../share/tessera beside the executable's folder, or deploy/data in a folder above it, as in a
// source tree. Throws FatalError when neither is there.
std::filesystem::path data_dir();

}  // namespace tessera
