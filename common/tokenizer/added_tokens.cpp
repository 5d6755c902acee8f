#include "common/tokenizer/added_tokens.hpp"

#include <algorithm>
#include <cstring>
#include <functional>

namespace tessera::tokenizer {

AddedTokenFinder::AddedTokenFinder(std::span<const AddedToken> tokens) : nodes_(1) {
  std::vector<const AddedToken*> ordered;
  for (const AddedToken& token : tokens) {
    ordered.push_back(&token);
  }
  std::ranges::sort(ordered, std::less{}, [](const AddedToken* token) { return token->content; });
  build(0, ordered, 0);
}

// Makes the part of the tree below `node` from the tokens that share its `depth` first bytes. The
// stack is as deep as the longest token, which the reader of the file bounds.
void AddedTokenFinder::build(std::uint32_t node, std::span<const AddedToken* const> tokens,
                             std::size_t depth) {
  if (!tokens.empty() && tokens.front()->content.size() == depth) {
    nodes_[node].id = tokens.front()->id;
    nodes_[node].special = tokens.front()->special;
    tokens = tokens.subspan(1);
  }
  nodes_[node].first_edge = static_cast<std::uint32_t>(edges_.size());
  std::vector<std::span<const AddedToken* const>> groups;
  while (!tokens.empty()) {
    const char byte = tokens.front()->content[depth];
    const auto other = std::ranges::find_if(
        tokens, [&](const AddedToken* token) { return token->content[depth] != byte; });
    const auto count = static_cast<std::size_t>(other - tokens.begin());
    edges_.push_back({byte, static_cast<std::uint32_t>(nodes_.size())});
    nodes_.emplace_back();
    groups.push_back(tokens.first(count));
    tokens = tokens.subspan(count);
  }
  nodes_[node].edge_count = static_cast<std::uint32_t>(groups.size());
  const std::uint32_t first_edge = nodes_[node].first_edge;
  for (std::uint32_t i = 0; i < groups.size(); ++i) {
    build(edges_[first_edge + i].node, groups[i], depth + 1);
  }
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::match_at(std::string_view text,
                                                                  std::size_t begin) const {
  std::optional<Match> longest;
  const Node* node = &nodes_[0];
  for (std::size_t at = begin; at < text.size(); ++at) {
    const auto edges = std::span(edges_).subspan(node->first_edge, node->edge_count);
    const auto edge = std::ranges::find(edges, text[at], &Edge::byte);
    if (edge == edges.end()) {
      break;
    }
    node = &nodes_[edge->node];
    if (node->id != Vocabulary::kNone) {
      longest = Match{begin, at + 1, node->id, node->special};
    }
  }
  return longest;
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text,
                                                              std::size_t from) const {
  const Node& root = nodes_[0];
  if (root.edge_count == 0) {
    return std::nullopt;
  }
  for (std::size_t at = from; at < text.size(); ++at) {
    if (root.edge_count == 1) {  // In all files so far each token starts with '<'.
      const char first = edges_[root.first_edge].byte;
      const void* next = std::memchr(text.data() + at, first, text.size() - at);
      if (next == nullptr) {
        break;
      }
      at = static_cast<std::size_t>(static_cast<const char*>(next) - text.data());
    }
    if (std::optional<Match> match = match_at(text, at)) {
      return match;
    }
  }
  return std::nullopt;
}

}  // namespace tessera::tokenizer
