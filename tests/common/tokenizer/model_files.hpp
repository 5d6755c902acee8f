#pragma once

#include <filesystem>

#include "common/tokenizer/tokenizer.hpp"

namespace tessera {

// The tokenizer files that the tests use: two genuine ones, unpacked by the build, and the shipped
// demo model's. The 8B model's file is the 4B one's.
inline std::filesystem::path tokenizer_file_06b() {
  return std::filesystem::path(TESSERA_TOKENIZER_DATA) / "Qwen3-Embedding-0.6B/tokenizer.json";
}
inline std::filesystem::path tokenizer_file_4b() {
  return std::filesystem::path(TESSERA_TOKENIZER_DATA) / "Qwen3-Embedding-4B/tokenizer.json";
}
inline std::filesystem::path tokenizer_file_demo() {
  return "deploy/data/demo-model/tokenizer.json";
}

// Loaded once per test program; aborts when it cannot be.
inline const Tokenizer& tokenizer_06b() {
  static const Tokenizer tokenizer = Tokenizer::load(tokenizer_file_06b()).value();
  return tokenizer;
}
inline const Tokenizer& tokenizer_4b() {
  static const Tokenizer tokenizer = Tokenizer::load(tokenizer_file_4b()).value();
  return tokenizer;
}

}  // namespace tessera
