#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/tokenizer/base/page_memory.hpp"
#include "common/tokenizer/base/vocabulary.hpp"

namespace tessera::tokenizer {

// Finds the longest token that text starts with: a tree of the tokens' bytes in one array, where
// the child of a node by a byte lies at the node's base ^ byte, so that a step is one load. No two
// nodes have the same base, so a cell that carries the byte belongs to the node it was asked for.
// Const after construction; any thread.
class TokenTrie {
 public:
  static constexpr std::int32_t kNone = Vocabulary::kNone;

  // A tree of the tokens `ids`, at least one, each with its piece in `vocabulary`. `shorter` has an
  // entry for each id of the vocabulary; for those of `ids` it is set to the longest other one that
  // the token starts with, kNone when there is none.
  TokenTrie(const Vocabulary& vocabulary, std::span<const std::int32_t> ids,
            std::span<std::int32_t> shorter);

  struct Match {
    std::int32_t token;
    std::uint32_t length;
  };
  // The longest token that the text [at, end), not empty, starts with; kNone when there is none.
  Match longest(const char* at, const char* end) const {
    const std::uint32_t first = static_cast<unsigned char>(*at);
    if (end - at == 1) {
      const Cell cell = cells_[root_base_ ^ first];
      return {cell.label() == first ? cell.token() - 1 : kNone, 1};
    }
    const Start start = starts_[first << 8U | static_cast<unsigned char>(at[1])];
    Match match{start.token, start.length};
    std::uint32_t base = start.base;
    for (const char* next = at + 2; base != 0 && next != end; ++next) {
      const std::uint32_t byte = static_cast<unsigned char>(*next);
      const Cell cell = cells_[base ^ byte];
      if (cell.label() != byte) {
        break;
      }
      if (cell.token() != 0) {
        match = {cell.token() - 1, static_cast<std::uint32_t>(next + 1 - at)};
      }
      base = cell.base();
    }
    return match;
  }

 private:
  static constexpr std::uint64_t kNoNode = 256;

  // 32 bits of base (0: no child), 23 of the token's id + 1, 9 of the byte (256: no node).
  struct Cell {
    std::uint64_t bits;

    std::uint32_t base() const { return static_cast<std::uint32_t>(bits >> 32U); }
    std::int32_t token() const { return static_cast<std::int32_t>(bits >> 9U & 0x7FFFFFU); }
    std::uint32_t label() const { return static_cast<std::uint32_t>(bits & 0x1FFU); }
  };
  class Builder;

  // By the first two bytes: the longest token that has no others, and the base of their node.
  struct Start {
    std::int32_t token;
    std::uint32_t base;
    std::uint32_t length;
  };

  Start start_of(std::uint32_t first_byte, std::uint32_t second_byte) const;

  PageArray<Cell> cells_;
  std::uint32_t root_base_;
  PageArray<Start> starts_;
};

}  // namespace tessera::tokenizer
