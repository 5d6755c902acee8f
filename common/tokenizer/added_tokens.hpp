#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Finds added tokens in raw text: the leftmost first, the longest of those that start at one place,
// case-sensitive, also inside words. Const after construction; any thread.
class AddedTokenFinder {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
    std::int32_t id;
    bool special;
  };

  explicit AddedTokenFinder(std::span<const AddedToken> tokens);

  // The first match at or after `from`.
  std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  // A tree of the tokens' bytes. A node's edges lie together, by byte.
  struct Node {
    std::uint32_t first_edge = 0;
    std::uint32_t edge_count = 0;
    std::int32_t id = Vocabulary::kNone;  // Of the token that ends here.
    bool special = false;
  };
  struct Edge {
    char byte;
    std::uint32_t node;
  };

  void build(std::uint32_t node, std::span<const AddedToken* const> tokens, std::size_t depth);
  std::optional<Match> match_at(std::string_view text, std::size_t begin) const;

  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
};

}  // namespace tessera::tokenizer
