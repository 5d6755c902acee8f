#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/tokenizer/bpe/merge_table.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Byte pair encoding by its definition, for files whose merges LongestMatch does not take: from
// single bytes, the neighbours whose merge has the lowest rank are joined, the leftmost first among
// equals, until no merge is left. Const after construction; any thread, each with its own scratch.
class MergeLoop {
 public:
  struct Scratch {
    struct Symbol {
      std::int32_t id;
      std::uint32_t previous;
      std::uint32_t next;
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;
  };

  explicit MergeLoop(const TokenizerSpec& spec);

  // Writes the ids of `piece`, below 4 GiB, to `out` and returns the end of them; there must be
  // room for one id a byte. Time is n log n in the bytes.
  std::int32_t* encode(std::string_view piece, Scratch& scratch, std::int32_t* out) const;

 private:
  std::array<std::int32_t, 256> byte_ids_;
  MergeTable table_;
  std::vector<std::int32_t> products_;  // By rank.
};

}  // namespace tessera::tokenizer
