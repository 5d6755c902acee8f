#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/tokenizer/json/tokenizer_json.hpp"
#include "common/tokenizer/text/pretokenizer.hpp"

namespace tessera {

// The definition of the encoding, written as plainly as can be: each piece from bytes, each time
// the lowest merge of all, the leftmost first. No cache, no table of our own; quadratic.
class PlainEncoder {
 public:
  explicit PlainEncoder(const tokenizer::TokenizerSpec& spec) : spec_(spec) {
    for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
      const tokenizer::Merge& merge = spec.merges[rank];
      ranks_[{merge.left, merge.right}] = rank;
    }
  }

  std::vector<std::int32_t> encode(std::string_view text) const {
    const tokenizer::Pretokenizer pretokenizer;
    std::vector<std::int32_t> ids;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = pretokenizer.piece_end(text, begin);
      const std::vector<std::int32_t> piece = merge(text.substr(begin, end - begin));
      ids.insert(ids.end(), piece.begin(), piece.end());
      begin = end;
    }
    return ids;
  }

  std::vector<std::int32_t> merge(std::string_view piece) const {
    std::vector<std::int32_t> ids;
    for (const char byte : piece) {
      ids.push_back(spec_.byte_ids[static_cast<unsigned char>(byte)]);
    }
    while (true) {
      std::size_t best_rank = spec_.merges.size();
      std::size_t best = 0;
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = ranks_.find({ids[i], ids[i + 1]});
        if (found != ranks_.end() && found->second < best_rank) {
          best_rank = found->second;
          best = i;
        }
      }
      if (best_rank == spec_.merges.size()) {
        return ids;
      }
      ids[best] = spec_.merges[best_rank].product;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }

 private:
  const tokenizer::TokenizerSpec& spec_;
  std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks_;
};

}  // namespace tessera
