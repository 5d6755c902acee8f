#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/result.hpp"
#include "common/tokenizer/merge_table.hpp"
#include "common/tokenizer/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Byte pair encoding of one piece: from single bytes, the neighbours whose merge has the lowest
// rank are joined, the leftmost first among equals, until no merge is left. Const after
// construction; any thread, each with its own scratch.
class Bpe {
 public:
  // One id of an encoded piece and where its bytes start there.
  struct Token {
    std::int32_t id;
    std::uint32_t start;
  };
  struct Scratch {
    struct Symbol {
      std::int32_t id;
      std::uint32_t previous;
      std::uint32_t next;
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;
    std::vector<Token> window;
    std::vector<Token> next_window;
  };

  // kInvalidArgument when a pair of neighbours has two merges.
  static Result<Bpe> make(const TokenizerSpec& spec);

  // The id of one byte.
  std::int32_t byte_id(unsigned char byte) const { return byte_ids_[byte]; }

  // Writes the ids of `piece`, below 4 GiB, to `out` and returns the end of them; there must be
  // room for one id a byte. Time is linear in the piece for all but contrived vocabularies.
  std::int32_t* encode(std::string_view piece, Scratch& scratch, std::int32_t* out) const;

 private:
  explicit Bpe(const TokenizerSpec& spec);
  void read_byte_pairs(const TokenizerSpec& spec);

  std::int32_t product(std::uint32_t rank) const {
    return products_.empty() ? first_product_ + static_cast<std::int32_t>(rank) : products_[rank];
  }
  template <typename Emit>
  void encode_short(std::string_view piece, Emit emit) const;
  void encode_heap(std::string_view piece, Scratch& scratch, std::vector<Token>& tokens) const;
  void encode_window(std::string_view piece, Scratch& scratch, std::vector<Token>& tokens) const;
  std::int32_t* encode_long(std::string_view piece, Scratch& scratch, std::int32_t* out) const;

  std::array<std::int32_t, 256> byte_ids_;
  MergeTable table_;
  // What single bytes may do, by left byte << 8 | right byte: the rank of the two as a pair; and
  // the lowest rank at which the right byte could be taken by any token that ends in the left one,
  // or the left byte by any token that starts with the right one.
  struct BytePair {
    std::uint32_t rank = MergeTable::kNoMerge;
    std::uint32_t right_taken = MergeTable::kNoMerge;
    std::uint32_t left_taken = MergeTable::kNoMerge;
  };
  std::vector<BytePair> byte_pairs_;
  std::vector<std::int32_t> products_;  // By rank; empty when they are consecutive,
  std::int32_t first_product_ = 0;      // and then this is the one of rank 0.
};

}  // namespace tessera::tokenizer
