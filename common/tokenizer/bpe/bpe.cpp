#include "common/tokenizer/bpe/bpe.hpp"

#include <string>

namespace tessera::tokenizer {

Result<Bpe> Bpe::make(const TokenizerSpec& spec) {
  MergeTable pairs(spec.merges.size());
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const Merge& merge = spec.merges[rank];
    if (!pairs.add(merge.left, merge.right, static_cast<std::uint32_t>(rank))) {
      return Error{ErrorCode::kInvalidArgument, "tokenizer.json: model.merges[" +
                                                    std::to_string(rank) +
                                                    "] joins a pair that an earlier one joins"};
    }
  }
  Bpe bpe;
  bpe.longest_match_ = LongestMatch::make(spec);
  if (!bpe.longest_match_) {
    bpe.merge_loop_.emplace(spec);
  }
  return bpe;
}

}  // namespace tessera::tokenizer
