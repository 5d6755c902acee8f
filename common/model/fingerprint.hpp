#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "common/model/safetensors.hpp"

namespace tessera {

using Digest = std::array<std::byte, 32>;

// BLAKE2b-256 of bytes, and its 64 hexadecimal digits.
Digest blake2b(std::span<const std::byte> bytes);
std::string to_hex(const Digest& digest);

// BLAKE2b-256 of DIR/tokenizer.json in hexadecimal, or an Error when there is none.
Result<std::string> tokenizer_hash(const std::filesystem::path& model_dir);

// What tells two sets of vectors apart: BLAKE2b-256 over, each preceded by its length,
//   1. the numeric type of the computation ("bfloat16", "float32"),
//   2. the bytes of config.json,
//   3. the tokenizer's hash,
//   4. per safetensors file, in name order: its name, its header (names, types, shapes, offsets),
//   5. per tensor, in name order: its first and last 4 KiB and 14 pages of 4 KiB at equal steps
//      between them (all of it up to 64 KiB).
// Samples, because hashing all 16 GB of an 8B model would cost more start-up time than loading it:
// any training step or quantisation touches every page, while a single flipped bit inside a large
// matrix goes unseen. Equal on every machine for equal files.
Result<std::string> model_fingerprint(const std::filesystem::path& model_dir,
                                      const SafetensorsFolder& weights,
                                      std::string_view numeric_type);

}  // namespace tessera
