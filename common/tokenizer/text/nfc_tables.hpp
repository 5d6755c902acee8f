#pragma once

#include <cstdint>
#include <span>

namespace tessera::tokenizer {

// The data of canonical composition in Unicode 9.0, without Hangul, which is arithmetic.

struct CombiningRun {
  char32_t first;
  char32_t last;  // Inclusive.
  std::uint8_t combining_class;
};

// One step of a canonical decomposition; `second` is 0 where one code point becomes one other.
struct Decomposition {
  char32_t code_point;
  char32_t first;
  char32_t second;
};

// Ascending; code points outside have combining class 0.
std::span<const CombiningRun> combining_runs();
// Decompositions that composition puts together again. Ascending by code point.
std::span<const Decomposition> compositions();
// Decompositions that stay: such a code point never occurs in form C. Ascending by code point.
std::span<const Decomposition> replacements();

}  // namespace tessera::tokenizer
