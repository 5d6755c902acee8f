#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/tokenizer/text/nfc_tables.hpp"
#include "common/tokenizer/text/two_stage_table.hpp"

namespace tessera::tokenizer {

// Unicode's form C with the tables of Unicode 9.0, as the reference (tokenizers 0.23.2) has it: a
// code point that Unicode 9.0 had not assigned is inert. Const after construction; any thread.
//
// Text that is in form C already, nearly all of it, costs one table look-up for each code point at
// or above U+0300 and is not copied. Otherwise only the stretches between stable code points that
// need it are rewritten, in time n log n of the longest stretch.
class Normalizer {
 public:
  // The one normaliser, whose tables are made at the first call.
  static const Normalizer& instance();

  // The text in form C: `text` itself where it already is, otherwise a view of `storage`, which is
  // overwritten. `text` must be valid UTF-8.
  std::string_view normalize(std::string_view text, std::string& storage) const;

 private:
  Normalizer();

  struct Char {
    char32_t code_point;
    std::uint8_t combining_class;
  };
  // A part of the text that is not in form C, from a stable code point to before the next one.
  struct Stretch {
    std::size_t begin;
    std::size_t end;
  };

  std::size_t skip_stable_blocks(std::string_view text, std::size_t from) const;
  Stretch next_unstable(std::string_view text, std::size_t from) const;
  std::size_t stable_before(std::string_view text, std::size_t first, std::size_t at) const;
  std::size_t stable_after(std::string_view text, std::size_t at) const;
  void append_composed(std::string_view stretch, std::vector<Char>& buffer, std::string& out) const;
  void decompose(char32_t code_point, std::vector<Char>& out) const;
  char32_t compose_pair(char32_t first, char32_t second) const;

  TwoStageTable properties_;                          // kStable, a combining class, or kUnsettled.
  TwoStageTable combining_;                           // The combining class.
  std::array<std::uint8_t, 256> may_start_unstable_;  // By lead byte.
  std::unordered_map<char32_t, Decomposition> decompositions_;
  std::unordered_map<std::uint64_t, char32_t> compositions_;  // By first << 32 | second.
};

}  // namespace tessera::tokenizer
