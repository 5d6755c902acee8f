#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/tokenizer/base/page_memory.hpp"
#include "common/tokenizer/bpe/merge_table.hpp"
#include "common/tokenizer/bpe/token_trie.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Byte pair encoding without merging: a few look-ups a token instead of a search per byte.
//
// A sequence of tokens is the encoding of its bytes if and only if each two neighbours are the
// encoding of theirs: merging never crosses a boundary of the encoding, and the first merge that
// crossed one in the whole text would cross it in the two neighbours alone as well. So the encoding
// is the one sequence in which all neighbours fit. It is found from the left: at each place the
// longest token that the text goes on with, where it does not fit the one before it the next
// shorter, and where none does, the place is no boundary and the token before it is shortened. A
// place that proved to be none is not tried twice, so the work is linear in the text.
//
// Whether two tokens fit follows from how merging builds each of them (`parts_fit`), which is plain
// where ids are in the order of merging: bytes, then the products, one merge each, after their
// parts. Files that training wrote are so; for others there is no LongestMatch (see MergeLoop).
// Const after construction; any thread, each with its own scratch.
class LongestMatch {
 public:
  struct Scratch {
    std::vector<std::uint64_t> dead;  // Of a long text, see encode_window.
    std::uint64_t tried = 0;          // Tokens tried in all texts so far, for tests of linearity.
  };

  // Nothing when the merges of `spec` are not as described above.
  static std::optional<LongestMatch> make(const TokenizerSpec& spec);

  // Writes the ids of `piece`, not empty, to `out` and returns the end of them; there must be room
  // for one id a byte. Time is linear in the piece.
  std::int32_t* encode(std::string_view piece, Scratch& scratch, std::int32_t* out) const;

 private:
  // A rank after every merge, and one after that.
  static constexpr std::uint32_t kNever = (1U << 22U) - 1;
  static constexpr std::uint32_t kNoLimit = kNever + 1;

  // What is known of a token of the vocabulary, in one load: how merging builds it, if it does.
  class Token {
   public:
    static constexpr std::int32_t kNoId = (1 << 21) - 1;

    Token() = default;
    Token(std::int32_t left, std::int32_t right, std::size_t length, std::uint32_t first_taken,
          std::uint32_t last_taken)
        : ids_(id_bits(left) | id_bits(right) << 21U | id_bits(kNoId) << 42U),
          facts_(length | std::uint64_t{first_taken} << 20U | std::uint64_t{last_taken} << 42U) {}

    // The two that it is merged from; of no meaning for a byte.
    std::int32_t left() const { return id(ids_); }
    std::int32_t right() const { return id(ids_ >> 21U); }
    // The longest other token that it starts with, or kNoId.
    std::int32_t shorter() const { return id(ids_ >> 42U); }
    void set_shorter(std::int32_t id) {
      ids_ = (ids_ & ((std::uint64_t{1} << 42U) - 1)) | id_bits(id) << 42U;
    }
    // In bytes; 0 when merging the token's own bytes does not give the token.
    std::size_t length() const { return static_cast<std::size_t>(facts_ & ((1U << 20U) - 1)); }
    // The ranks at which its first and its last byte are merged; kNever for a byte.
    std::uint32_t first_taken() const { return static_cast<std::uint32_t>(facts_ >> 20U & kNever); }
    std::uint32_t last_taken() const { return static_cast<std::uint32_t>(facts_ >> 42U); }

   private:
    static std::int32_t id(std::uint64_t bits) { return static_cast<std::int32_t>(bits & kNoId); }
    static std::uint64_t id_bits(std::int32_t id) { return static_cast<std::uint64_t>(id); }

    std::uint64_t ids_;
    std::uint64_t facts_;
  };

  // By left byte << 8 | right byte: the rank at which the two merge, and the lowest at which the
  // left one merges with any token that starts with the right one.
  struct BytePair {
    std::uint32_t rank = kNever;
    std::uint32_t left_taken = kNever;
  };

  explicit LongestMatch(const TokenizerSpec& spec);
  void read_byte_pairs(const TokenizerSpec& spec);
  std::vector<std::int32_t> find_whole(const TokenizerSpec& spec);

  const Token& token(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
  std::uint32_t rank_of(std::int32_t product) const {
    return static_cast<std::uint32_t>(product - first_product_);
  }
  static std::size_t place_of(char left, char right) {
    return static_cast<std::size_t>(static_cast<unsigned char>(left)) << 8U |
           static_cast<unsigned char>(right);
  }
  const BytePair& byte_pair(const char* left) const {
    return byte_pairs_[place_of(left[0], left[1])];
  }
  // The rank before which the token after `before` must merge its first byte, so that the two bytes
  // at the boundary between them do not merge.
  std::uint32_t limit_after(const Token& before, const char* boundary) const {
    const std::uint32_t rank = byte_pair(boundary - 1).rank;
    return rank < before.last_taken() ? rank : kNoLimit;
  }
  bool parts_fit(std::int32_t left, std::int32_t right, std::uint32_t limit) const;
  std::int32_t* encode_window(std::string_view text, Scratch& scratch, std::int32_t* out) const;
  // A part of a long piece, encoded alone, and where its ids are.
  struct Window {
    std::size_t begin;
    std::size_t size;
    std::int32_t* ids;
    std::int32_t* ids_end;
  };
  // Goes on to the next window; false when none was found that fits.
  bool chain(std::string_view piece, Window& window, Scratch& scratch) const;

  MergeTable merges_;
  std::int32_t first_product_;
  PageArray<Token> tokens_;
  std::vector<BytePair> byte_pairs_;
  std::optional<TokenTrie> trie_;
};

}  // namespace tessera::tokenizer
