#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/result.hpp"
#include "common/tokenizer/id_buffer.hpp"
#include "common/tokenizer/merge_table.hpp"
#include "common/tokenizer/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Working memory of Bpe::encode; one per thread.
struct BpeScratch {
  struct Symbol {
    std::int32_t id;
    std::uint32_t previous;
    std::uint32_t next;
  };
  std::vector<Symbol> symbols;
  std::vector<std::uint64_t> heap;
};

// Byte pair encoding of one piece: from single bytes, the neighbours whose merge has the lowest
// rank are joined, the leftmost first among equals, until no merge is left. Const after
// construction; any thread, each with its own scratch.
class Bpe {
 public:
  // kInvalidArgument when a pair of neighbours has two merges.
  static Result<Bpe> make(const TokenizerSpec& spec);

  // Appends the ids of `piece`, of any length below 4 GiB; time is n log n at worst.
  void encode(std::string_view piece, BpeScratch& scratch, IdBuffer& out) const;

 private:
  explicit Bpe(const TokenizerSpec& spec);

  void encode_short(std::string_view piece, IdBuffer& out) const;
  void encode_long(std::string_view piece, BpeScratch& scratch, IdBuffer& out) const;

  std::array<std::int32_t, 256> byte_ids_;
  MergeTable table_;
  std::vector<std::int32_t> products_;  // By rank.
};

}  // namespace tessera::tokenizer
