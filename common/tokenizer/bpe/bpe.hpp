#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/result.hpp"
#include "common/tokenizer/bpe/longest_match.hpp"
#include "common/tokenizer/bpe/merge_loop.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Byte pair encoding of one piece: by LongestMatch where the file's merges allow it, which those of
// Qwen do, otherwise by MergeLoop. Const after construction; any thread, each with its own scratch.
class Bpe {
 public:
  struct Scratch {
    LongestMatch::Scratch longest_match;
    MergeLoop::Scratch merge_loop;
  };

  // kInvalidArgument when a pair of neighbours has two merges.
  static Result<Bpe> make(const TokenizerSpec& spec);

  // Writes the ids of `piece`, not empty and below 4 GiB, to `out` and returns the end of them;
  // there must be room for one id a byte.
  std::int32_t* encode(std::string_view piece, Scratch& scratch, std::int32_t* out) const {
    return longest_match_ ? longest_match_->encode(piece, scratch.longest_match, out)
                          : merge_loop_->encode(piece, scratch.merge_loop, out);
  }

 private:
  Bpe() = default;

  // One of the two is there.
  std::optional<LongestMatch> longest_match_;
  std::optional<MergeLoop> merge_loop_;
};

}  // namespace tessera::tokenizer
