#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/wire/protocol.hpp"

namespace tessera::cli {

// NumPy's .npy, version 1.0: a header that states type and shape, then the rows. Ours is always 128
// bytes long, so that the number of rows can be put right when more have been written.
inline constexpr std::size_t kNpyHeaderBytes = 128;
std::string npy_header(protocol::VectorType type, std::uint64_t rows, std::uint64_t columns);

// A two-dimensional little-endian float32 or float16 file, widened to float32.
struct NpyMatrix {
  std::uint64_t rows = 0;
  std::uint64_t columns = 0;
  std::vector<float> values;  // [rows, columns]
};

// Throws FatalError on any other file.
NpyMatrix read_npy(const std::string& path);

}  // namespace tessera::cli
