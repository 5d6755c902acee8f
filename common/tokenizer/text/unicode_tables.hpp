#pragma once

#include <cstdint>
#include <span>

namespace tessera::tokenizer {

// What the split pattern sees in a code point. Letters, numbers and white space are those of
// Unicode 16.0, the version that the reference (Hugging Face tokenizers 0.23.2) uses; the runs were
// measured on it code point by code point, see tests/data/tokenizer.
enum class CharClass : std::uint8_t {
  kOther = 0,
  kLetter = 1,
  kNumber = 2,
  kSpace = 3,      // White space except the next.
  kLineBreak = 4,  // Carriage return or line feed.
};

struct ClassRun {
  char32_t first;
  char32_t last;  // Inclusive.
  CharClass char_class;
};

// Ascending, without overlaps; every code point outside the runs is kOther.
std::span<const ClassRun> class_runs();

}  // namespace tessera::tokenizer
